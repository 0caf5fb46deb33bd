"""What a learner has solved, and their files. Both survive an update of the course: they go by stable ids."""

import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import console, workspace
from lab.workshop.manifest import Exercise
from services.paths import atomic_write
from settings import settings

VERSION = 1
ID = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")
MOST_LETTERS = 100_000  # of one file of a learner


@dataclass
class Progress:
    """What is passed, with the day of it, and which exercise was open last.

    `kept_aside`: where the file lies now, if it could not be read.
    """

    passed: dict[str, str] = field(default_factory=dict)
    last: str = ""
    kept_aside: Path | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what is written down."""
        return {"version": VERSION, "passed": self.passed, "last": self.last}


def home() -> Path:
    """Return the folder of the learner's files."""
    return settings.workspace_dir / "exercises"


def file_of(exercise: Exercise) -> Path:
    """Return the learner's file of an exercise."""
    return home() / f"{exercise.id}.py"


def copy_stubs(exercises: list[Exercise]) -> list[str]:
    """Make the learner's files that are missing. Return which stay although the course has newer ones.

    Raises `OSError` if nothing can be written there.
    """
    return workspace.update(_stubs(exercises), home())


def reset(exercise: Exercise, exercises: list[Exercise]) -> Path:
    """Give the exercise's file back as it was, and return where the learner's own lies now."""
    aside = workspace.reset(_stubs(exercises), home(), f"{exercise.id}.py")
    with _changed() as progress:
        progress.passed.pop(exercise.id, None)
    return aside


def _stubs(exercises: list[Exercise]) -> dict[str, Path]:
    return {f"{one.id}.py": one.stub for one in exercises}


# --- What is passed --------------------------------------------------------------------------------------


def read() -> Progress:
    """Return the progress. A file that cannot be read is kept aside."""
    try:
        found = json.loads(_path().read_text())
        return Progress(_texts(found["passed"]), str(found["last"]))
    except FileNotFoundError:
        return Progress()
    except (ValueError, LookupError, TypeError, AttributeError):
        return Progress(kept_aside=_path().replace(_path().with_suffix(".broken.json")))


def mark_passed(exercise: Exercise) -> None:
    """Write down that an exercise is solved."""
    with _changed() as progress:
        progress.passed.setdefault(exercise.id, datetime.now(UTC).date().isoformat())


def mark_opened(exercise: Exercise) -> None:
    """Write down which exercise is open: the next start begins there."""
    with _changed() as progress:
        progress.last = exercise.id


@contextmanager
def _changed() -> Iterator[Progress]:
    """Give the progress as it is now, and keep what the block changes: two terminals may do it at once."""
    _path().parent.mkdir(parents=True, exist_ok=True)
    with _path().with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        progress = read()
        yield progress
        with atomic_write(_path()) as file:
            file.write(json.dumps(progress.as_json(), indent=1).encode())


def _path() -> Path:
    return settings.workspace_dir / "progress.json"


def _texts(found: dict[Any, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in found.items()}


def read_aloud() -> Progress:
    """Return the progress, and say so if its file could not be read."""
    found = read()
    if found.kept_aside:
        console.say(f"The progress could not be read. It is kept as {found.kept_aside}, and begins anew.")
    return found


def show(exercises: list[Exercise]) -> None:
    """Print all exercises with what is solved."""
    passed = read_aloud().passed
    for one in exercises:
        mark = "[x]" if one.id in passed else "[ ]"
        fast = "  fast track" if one.fast_track else ""
        console.out.print(f"  {mark} {one.part} {one.id:34} {one.minutes:2} min{fast}", markup=False)
    solved = sum(one.id in passed for one in exercises)
    console.say(f"{solved} of {len(exercises)} solved.")


# --- On a second machine ---------------------------------------------------------------------------------


def export(target: Path, exercises: list[Exercise]) -> int:
    """Write the progress and the learner's files that differ from the stubs to `target`.

    Return how many files they are. Raises `OSError` if it cannot be written.
    """
    files = {
        one.id: file_of(one).read_text()
        for one in exercises
        if file_of(one).exists() and file_of(one).read_bytes() != one.stub.read_bytes()
    }
    kept = {**read().as_json(), "files": files}
    with atomic_write(target) as file:
        file.write(json.dumps(kept, indent=1).encode())
    return len(files)


def take_over(source: Path, exercises: list[Exercise]) -> list[Path]:
    """Take over what `export` has written on another machine, and return the files that were kept aside.

    Raises `ValueError` if it is no such file, and changes nothing then.
    """
    try:
        found = json.loads(source.read_text())
        passed, files, last = _texts(found["passed"]), _texts(found["files"]), str(found["last"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{source}: not a file of `./learn progress export` ({error!r})") from None
    for name, text in files.items():
        if not ID.fullmatch(name) or len(text) > MOST_LETTERS:
            raise ValueError(f"{source}: {name!r} is not the id of an exercise, or its file is too long")
    copy_stubs(exercises)
    aside = []
    stubs = {one.id: one.stub.read_text() for one in exercises}
    for name, text in files.items():
        path = home() / f"{name}.py"
        if path.exists() and path.read_text() not in (text, stubs.get(name)):
            aside.append(path.replace(path.with_suffix(".old.py")))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(text.encode())
    with _changed() as progress:
        progress.passed = passed | progress.passed
        progress.last = last
    return aside
