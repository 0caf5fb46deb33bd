"""A program that tells a story: each step shows its code, runs it, and shows what came back.

story = Story(__doc__, queues=["basic"])

@story.step("Send a task", expect=9)
def first_task() -> int:
    \"\"\"delay() puts a message on the queue. get() waits for the result.\"\"\"
    return add.delay(4, 5).get(timeout=10)

story.main()
"""

import argparse
import inspect
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kombu.exceptions import OperationalError

from lab import console
from lab.serving import served

Function = TypeVar("Function", bound=Callable[[], Any])


@dataclass(frozen=True)
class Step:
    """One step: its title, its code, and what the code must give back."""

    title: str
    function: Callable[[], Any]
    expect: Any


class Story:
    """Steps that run in order, with workers for `queues`.

    `description` is the text of --help; its first line is the title. `ending` is printed last.
    """

    def __init__(
        self, description: str | None, queues: Sequence[str], concurrency: int = 2, ending: str = ""
    ) -> None:
        self.description = description or ""
        self.queues = queues
        self.concurrency = concurrency
        self.ending = ending
        self.steps: list[Step] = []

    def step(self, title: str, *, expect: Any) -> Callable[[Function], Function]:
        """Add the decorated function as a step.

        `expect` is the value that it must return, or a function of the value that must be true.
        """

        def add(function: Function) -> Function:
            self.steps.append(Step(title, function, expect))
            return function

        return add

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Run the story as a program. The exit code is 0 only if every step did what it says."""
        parser = argparse.ArgumentParser(
            description=self.description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.parse_args(arguments)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave the sandbox in good order
        try:
            self.tell()
        except BaseException as error:
            code = console.explain(error)
            if code is None:
                raise
            sys.exit(code)

    def tell(self) -> None:
        """Run all steps. Raises `StepFailed` at the first one that does not do what it says."""
        console.heading(self.description.splitlines()[0])
        with served(self.queues, self.concurrency):
            for number, step in enumerate(self.steps, 1):
                self._run(number, step)
        if self.ending:
            console.out.print(f"\n{self.ending}")

    def _run(self, number: int, step: Step) -> None:
        console.heading(f"{number}. {step.title}")
        for line in inspect.getdoc(step.function).splitlines():  # type: ignore[union-attr]
            console.say(line)
        console.code(body_of(step.function))
        with console.waiting_for("the workers"):
            try:
                value = step.function()
            except OperationalError:
                raise
            except Exception as error:
                raise StepFailed(f"Step {number} ({step.title}) raised {error!r}.") from error
        console.result(value)
        met = step.expect(value) if callable(step.expect) else value == step.expect
        if not met:
            expected = "another result" if callable(step.expect) else repr(step.expect)
            raise StepFailed(f"Step {number} ({step.title}) gave {value!r}; expected {expected}.")


class StepFailed(ValueError):
    """A step of a story did not do what its text says."""


def body_of(function: Callable[..., Any]) -> str:
    """Return the source of a function without its decorator, its head and its docstring."""
    lines, _ = inspect.getsourcelines(function)
    source = "".join(lines)
    docstring = function.__doc__ or ""
    _, _, after = source.partition(docstring + '"""')
    return textwrap.dedent(after.strip("\n"))
