"""Watch mode: the learner edits one file, saves, and reads what a real worker did with it."""

import contextlib
import difflib
import os
import select
import shlex
import shutil
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import console
from lab.workshop import progress
from lab.workshop.checker import Checker
from lab.workshop.manifest import Exercise, find
from lab.workshop.verdicts import PASSED, Verdict

POLL_SECONDS = 0.1  # a save is seen by looking at the file: that works on every file system
KEYS = "n next   r run   h hint   t text   l list   d difference   x reset   q quit"
CLEAR = "\x1b[2J\x1b[3J\x1b[H"


class Watch:
    """Shows exercises one after the other, and checks the file of the one that is open at each save.

    `edit_command`: opens a file in an editor; `{}` in it stands for the file.
    """

    def __init__(self, exercises: list[Exercise], checker: Checker, edit_command: str = "") -> None:
        self.exercises = exercises
        self.checker = checker
        self.edit_command = edit_command or _editor()
        self.hinted: dict[tuple[str, int], int] = {}
        self.verdict: Verdict | None = None

    def run(self, exercise: Exercise) -> None:
        """Watch until the learner quits. They read the text while the checker gets ready."""
        self.open(exercise)
        seen = self._stamp()
        with self.checker, _single_keys() as is_terminal:
            self.is_terminal = is_terminal
            while True:
                key = self._key(POLL_SECONDS)
                if key in ("q", None):
                    return
                if key:
                    self._obey(key)
                    seen = self._stamp() if key in "nlx" else seen
                if self._stamp() != seen:
                    seen = self._stamp()
                    self.check()

    def open(self, exercise: Exercise) -> None:
        """Show an exercise, and open its file."""
        self.exercise, self.verdict = exercise, None
        progress.mark_opened(exercise)
        self.show_text()
        if self.edit_command:
            path = shlex.quote(str(self.file))
            command = self.edit_command
            command = command.replace("{}", path) if "{}" in command else f"{command} {path}"
            try:
                subprocess.Popen(shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            except OSError as error:
                console.say(f"The editor did not start: {error}")

    @property
    def file(self) -> Path:
        """The learner's file."""
        return progress.file_of(self.exercise)

    def show_text(self) -> None:
        """Show the text of the exercise."""
        self._begin_page()
        for line in self.exercise.text.splitlines()[1:]:
            console.say(line) if line else console.out.print()
        self._show_keys()

    def check(self) -> None:
        """Check the file, and show the verdict."""
        self._begin_page()
        console.out.print("Running …")
        self.verdict = self.checker.check(self.exercise, self.file)
        self._begin_page()
        for line in self.verdict.text(min(console.out.width, 100)).splitlines():
            style = "green" if line.startswith("[x]") else "yellow" if line.startswith("[ ]") else ""
            console.out.print(line, style=style, markup=False)
        if self.verdict.passed:
            progress.mark_passed(self.exercise)
            console.say("It works. n: the next exercise. d: what differs from our solution.")
        self._show_keys()
        self.checker.make_ready()
        if self.is_terminal:
            termios.tcflush(
                sys.stdin, termios.TCIFLUSH
            )  # what was typed meanwhile was meant for what was shown

    def _obey(self, key: str) -> None:
        match key:
            case "n" if self.verdict and self.verdict.passed:
                self._open_next()
            case "n":
                console.say("Next: after a pass. l shows the list: there you can go to any exercise.")
            case "r":
                self.check()
            case "h":
                self.show_hint()
            case "t":
                self.show_text()
            case "l":
                self.show_list()
            case "d":
                self.show_difference()
            case "x":
                aside = progress.reset(self.exercise, self.exercises)
                self.verdict = None
                console.say(
                    f"The file is as it was. Yours is kept as {aside}. Reload the file in your editor."
                )

    def _open_next(self) -> None:
        passed = progress.read().passed
        at = self.exercises.index(self.exercise)
        rest = [one for one in self.exercises[at + 1 :] + self.exercises[:at] if one.id not in passed]
        if rest:
            self.open(rest[0])
        else:
            console.say("All exercises are solved.")

    def show_hint(self) -> None:
        """Show the next hint for the first task that is not passed."""
        lines = self.verdict.lines if self.verdict else ()
        done = {line.number for line in lines if line.kind == PASSED}
        number = next((number for number in self.exercise.tasks() if number not in done), None)
        if number is None:
            console.say("All tasks are passed.")
            return
        hints = self.exercise.hints(number)
        level = min(self.hinted.get((self.exercise.id, number), 0) + 1, len(hints))
        self.hinted[self.exercise.id, number] = level
        console.say(f"Hint {level} of {len(hints)} for task {number}: {hints[level - 1]}")

    def show_list(self) -> None:
        """Show all exercises, and go to the one that the learner names."""
        self._begin_page()
        progress.show(self.exercises)
        name = self._line("Part of a name, to go there. Enter: stay.")
        if not name:
            self.show_text()
            return
        found = [one for one in self.exercises if name.lower() in f"{one.id} {one.title}".lower()]
        with contextlib.suppress(ValueError):
            found = [find(name, self.exercises)]
        if len(found) == 1:
            self.open(found[0])
        else:
            console.say("Found: " + (", ".join(one.id for one in found) or "none"))

    def show_difference(self) -> None:
        """Show what differs from our solution, after a pass."""
        if not (self.verdict and self.verdict.passed):
            console.say("The difference is shown after a pass.")
            return
        yours, ours = self.file.read_text().splitlines(), self.exercise.solution.read_text().splitlines()
        lines = list(difflib.unified_diff(yours, ours, "yours", "our solution", lineterm="", n=1))
        console.out.print("\n".join(lines) or "No line differs.", markup=False)

    def _begin_page(self) -> None:
        if console.out.is_terminal:
            console.out.file.write(CLEAR)
        at = self.exercises.index(self.exercise) + 1
        console.heading(
            f"{at} of {len(self.exercises)}: {self.exercise.title}  ({self.exercise.minutes} min)"
        )
        path = self.file
        console.out.print(f"  [link=file://{path}]{path}[/link]" if console.out.is_terminal else f"  {path}")

    def _show_keys(self) -> None:
        console.out.print(f"\n{KEYS}", markup=False)

    # --- keys ---

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self.file.stat()
        except FileNotFoundError:  # an editor is putting a new one there
            return None
        return found.st_mtime_ns, found.st_size

    def _key(self, seconds: float) -> str | None:
        """Return what was typed: a key, "" if nothing was, None at the end of the input."""
        if not select.select([sys.stdin], [], [], seconds)[0]:
            return ""
        if self.is_terminal:
            typed = os.read(sys.stdin.fileno(), 1).decode(errors="replace")
            return typed.lower() if typed and typed != "\x04" else None
        line = sys.stdin.readline()
        return (line.strip().lower()[:1] or " ") if line else None

    def _line(self, question: str) -> str:
        console.say(question)
        if not self.is_terminal:
            return sys.stdin.readline().strip()
        with _whole_lines():
            return sys.stdin.readline().strip()


@contextmanager
def _single_keys() -> Iterator[bool]:
    """Read single keys in the block, in a terminal. Give whether there is one."""
    if not sys.stdin.isatty():
        yield False
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@contextmanager
def _whole_lines() -> Iterator[None]:
    before = termios.tcgetattr(sys.stdin)
    changed = termios.tcgetattr(sys.stdin)
    changed[3] |= termios.ICANON | termios.ECHO
    try:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, changed)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _editor() -> str:
    """Return the command of VS Code if this is its terminal."""
    in_code = os.environ.get("TERM_PROGRAM") == "vscode" and shutil.which("code")
    return "code {}" if in_code else ""
