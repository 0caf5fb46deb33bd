"""A program that tells a story: each step shows its code, runs it, and shows what came back.

story = Story(__doc__, queues=["basic"])

@story.step(expect=9)
def first_task() -> int:
    \"\"\"Send a task.

    delay() puts a message on the queue. get() waits for the result.
    \"\"\"
    return add.delay(4, 5).get(timeout=10)

story.main()
"""

import argparse
import ast
import inspect
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kombu.exceptions import OperationalError

from lab import console
from lab.sandbox import Sandbox
from lab.serving import served

Function = TypeVar("Function", bound=Callable[[], Any])


@dataclass(frozen=True)
class Step:
    """One step: a function, and what it must give back."""

    function: Callable[[], Any]
    expect: Any

    @property
    def title(self) -> str:
        """The first line of the function's docstring."""
        return self._docstring[0].removesuffix(".")

    @property
    def explanation(self) -> list[str]:
        """The other lines of the function's docstring."""
        return self._docstring[2:]

    @property
    def code(self) -> str:
        """The source of the function, without its decorator, its head and its docstring."""
        source, definition = self._source
        docstring = definition.body[0]
        return textwrap.dedent("".join(source.splitlines(keepends=True)[docstring.end_lineno :]))

    @property
    def expectation(self) -> str:
        """The source of `expect`; of a function with an expression, only the expression."""
        source, definition = self._source
        [decorator] = definition.decorator_list
        assert isinstance(decorator, ast.Call)
        [expect] = [keyword.value for keyword in decorator.keywords if keyword.arg == "expect"]
        shown = expect.body if isinstance(expect, ast.Lambda) else expect
        return " ".join((ast.get_source_segment(source, shown) or "").split())

    def is_met_by(self, value: Any) -> bool:
        """Tell whether the value is what the step must give back."""
        return bool(self.expect(value)) if callable(self.expect) else value == self.expect

    @property
    def _docstring(self) -> list[str]:
        return (inspect.getdoc(self.function) or "").splitlines()

    @property
    def _source(self) -> tuple[str, ast.FunctionDef]:
        source = textwrap.dedent(inspect.getsource(self.function))
        [definition] = ast.parse(source).body
        assert isinstance(definition, ast.FunctionDef)
        return source, definition


class StepFailed(ValueError):
    """A step of a story did not do what its text says."""


class Story:
    """Steps that run in order, with workers for `queues`. In a terminal it pauses after each step.

    `description` is the text of --help; its first line is the title. `ending` is printed last.
    While the story runs, `sandbox` is what it runs in.
    """

    sandbox: Sandbox

    def __init__(
        self, description: str | None, queues: Sequence[str], concurrency: int = 2, ending: str = ""
    ) -> None:
        self.description = description or ""
        self.queues = queues
        self.concurrency = concurrency
        self.ending = ending
        self.pauses = False
        self.steps: list[Step] = []

    def step(self, *, expect: Any) -> Callable[[Function], Function]:
        """Add the decorated function as a step. Its docstring is the title, an empty line, an explanation.

        `expect` is the value that it must return, or a function of the value that must be true.
        """

        def add(function: Function) -> Function:
            self.steps.append(Step(function, expect))
            return function

        return add

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Run the story as a program. The exit code is 0 only if every step did what it says."""
        parser = argparse.ArgumentParser(
            description=self.description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--no-pause", action="store_true", help="do not wait for Enter after each step")
        options = parser.parse_args(arguments)
        self.pauses = sys.stdin.isatty() and sys.stdout.isatty() and not options.no_pause
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
        with served(self.queues, self.concurrency) as self.sandbox:
            for number, step in enumerate(self.steps, 1):
                self._run(number, step)
                if self.pauses and number < len(self.steps):
                    console.wait_for_enter()
        if self.ending:
            console.out.print(f"\n{self.ending}")

    def _run(self, number: int, step: Step) -> None:
        console.heading(f"{number}. {step.title}")
        for line in step.explanation:
            console.say(line)
        console.code(step.code)
        with console.waiting_for("the workers"):
            try:
                value = step.function()
            except OperationalError:
                raise
            except Exception as error:
                raise StepFailed(f"Step {number} ({step.title}) raised {error!r}.") from error
        console.result(value)
        if not step.is_met_by(value):
            raise StepFailed(f"Step {number} ({step.title}) gave {value!r}; expected {step.expectation}")
