"""The ordered list of exercises, and where the files of each one are."""

import ast
import hashlib
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

from settings import ROOT

EXERCISES = ROOT / "exercises"
SUMS = "SHA256SUMS"  # of the checks, in the form of sha256sum


@dataclass(frozen=True)
class Exercise:
    """An exercise. `id` never changes, wherever its folder moves; progress and the learner's file go by it.

    `seconds`: how long a check may take. `waits`: its subject is waiting, so a check takes its time.
    `fast_track`: enough for somebody who knows this part already.
    """

    id: str
    folder: Path
    minutes: int
    seconds: float = 60
    fast_track: bool = False
    waits: bool = False

    @property
    def part(self) -> str:
        """The number of the notebook that it belongs to: `09`."""
        return self.folder.parent.name[:2]

    @cached_property
    def title(self) -> str:
        """The first heading of its text."""
        return self.text.splitlines()[0].removeprefix("# ")

    @cached_property
    def text(self) -> str:
        """What the learner reads."""
        return (self.folder / "README.md").read_text()

    @property
    def stub(self) -> Path:
        """The file that the learner gets to edit."""
        return self.folder / "tasks.py"

    @property
    def check(self) -> Path:
        """The file that says what must be seen."""
        return self.folder / "check.py"

    @property
    def solution(self) -> Path:
        """One right way."""
        return self.folder / ".author" / "solution.py"

    @property
    def wrong(self) -> list[Path]:
        """Wrong ways that people really go. Each begins with what its verdict must say."""
        return sorted((self.folder / ".author" / "wrong").glob("*.py"))

    def hints(self, number: int) -> list[str]:
        """Return the hints for one task, the weakest first."""
        parts = re.split(r"^## Task (\d+)\n", (self.folder / "hints.md").read_text(), flags=re.MULTILINE)
        found = dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))
        return re.findall(r"^\d\. (.+(?:\n   .+)*)", found.get(number, ""), flags=re.MULTILINE)

    def tasks(self) -> dict[int, str]:
        """Return the numbered tasks of its text: the number, and the first sentence in bold."""
        found = re.findall(r"^(\d)\. \*\*(.+?)\*\*", self.text, re.MULTILINE)
        return {int(number): text.rstrip(".") for number, text in found}

    def has_own_check(self) -> bool:
        """Return whether the check is as the course came with it."""
        listed = sums().get(f"{self.folder.relative_to(EXERCISES)}/check.py")
        return listed == hashlib.sha256(self.check.read_bytes()).hexdigest()

    def load_check(self) -> ModuleType:
        """Return the check as a module. Raises `ValueError` if the learner has changed it."""
        if not self.has_own_check():
            raise ValueError(
                f"{self.check} was changed, so its verdict says nothing. Give it back: "
                f"git checkout {self.check.relative_to(ROOT)}"
            )
        module = ModuleType("check")
        exec(compile(self.check.read_bytes(), self.check, "exec"), module.__dict__)  # noqa: S102 - our own file
        return module


def sums() -> dict[str, str]:
    """Return the hash of each check as the course came with it, by its path in the folder `exercises`."""
    lines = (EXERCISES / SUMS).read_text().splitlines()
    return {name: value for value, name in (line.split("  ", 1) for line in lines)}


def same_code(one: bytes, other: bytes) -> bool:
    """Tell whether two sources differ in comments and layout at most. False if one cannot be read."""
    try:
        return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))
    except (SyntaxError, ValueError):
        return one == other


def load() -> list[Exercise]:
    """Return all exercises, in their order."""
    listed = tomllib.loads((EXERCISES / "manifest.toml").read_text())["exercise"]
    return [Exercise(**entry | {"folder": EXERCISES / entry["folder"]}) for entry in listed]


def find(name: str, exercises: list[Exercise]) -> Exercise:
    """Return the exercise with the id `name`, or the only one whose id contains it.

    Raises `ValueError` for another name.
    """
    found = [one for one in exercises if one.id == name] or [one for one in exercises if name in one.id]
    if not name or len(found) != 1:
        near = ", ".join(one.id for one in found or exercises)
        raise ValueError(f"name={name!r}: must name one exercise of {near}")
    return found[0]
