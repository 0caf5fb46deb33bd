"""How programs of this project speak: one small set of styles, readable without colour."""

import contextlib
import io
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def heading(text: str) -> None:
    """Begin a part."""
    out.print(f"\n[bold]{escape(text)}[/]")


def say(text: str) -> None:
    """Explain in a sentence."""
    out.print(escape(_wrapped(text, "  ")))


def code(source: str) -> None:
    """Show the code that runs next."""
    for line in source.splitlines():
        out.print(f"    [cyan]{escape(line)}[/]")


def result(value: Any) -> None:
    """Show what came back."""
    first, *others = _wrapped(str(value), "     ").splitlines() or [""]
    out.print("\n".join([f"  [green]->[/] {escape(first.strip())}", *map(escape, others)]))


def wait_for_enter() -> None:
    """Wait until the reader goes on."""
    out.print("  [dim]Enter: next step[/]", end=" ")
    with contextlib.suppress(EOFError):
        input()


def _wrapped(text: str, indent: str) -> str:
    """Return `text` behind an indent. In a terminal, lines end between words."""
    if not out.is_terminal:
        return indent + text
    wrapper = textwrap.TextWrapper(out.width, initial_indent=indent, subsequent_indent=indent)
    wrapper.break_long_words = wrapper.break_on_hyphens = False  # a name or a path can be copied
    return "\n".join(wrapper.fill(line) for line in text.splitlines() or [""])


def fail(text: str) -> None:
    """Tell what went wrong; on standard error."""
    err.print(f"[red]Error:[/] {escape(text)}")


def explain(error: BaseException) -> int | None:
    """Tell in one line why a program ends with `error`, and return its exit code.

    Returns None, and tells nothing, of an error that is a fault of the program itself: raise it, with its
    traceback. The same for an exit that has its code already.
    """
    if isinstance(error, BrokenPipeError):  # whoever read the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, KeyboardInterrupt):
        fail("interrupted")
        return 130
    if text := _what_its_user_can_mend(error):
        fail(text)
        return 1
    return None


def _what_its_user_can_mend(error: BaseException) -> str | None:
    # Late: programs that end well need none of it.
    from kombu.exceptions import OperationalError
    from redis import RedisError

    from celery_app import broker_trouble
    from lab.processes.connection import SandboxError

    match error:
        case SystemExit():
            return error.code if isinstance(error.code, str) else None
        case RedisError():
            return broker_trouble(error)
        case SandboxError() | OperationalError() | ValueError() | OSError():  # TimeoutError is an OSError
            return str(error)
        case TypeError():  # of a canvas that was typed
            return str(error)
    return None


@contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Show a spinner, in a terminal only, while the block waits for `what`."""
    with err.status(f"Waiting for {what} …"):
        yield


def as_text(view: RenderableType, width: int) -> str:
    """Return `view` as plain text of at most `width` columns."""
    # In a notebook Rich would show the page there, too.
    page = Console(file=io.StringIO(), width=width, highlight=False, color_system=None, force_jupyter=False)
    page.print(view)
    assert isinstance(page.file, io.StringIO)
    return "\n".join(line.rstrip() for line in page.file.getvalue().rstrip().splitlines())


def printable(text: str) -> str:
    """Return `text` with an escape for each sign that a terminal would obey, or could not show."""
    return "".join(sign if sign.isprintable() else _escaped(sign) for sign in text)


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode()
