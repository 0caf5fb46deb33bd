"""What an exercise must be. Each problem is one line that names the file and the remedy."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lab.workshop.manifest import EXERCISES, Exercise

FILES = {"README.md", "tasks.py", "check.py", "hints.md", ".author"}
MOST_LINES = 40
LEAST_WRONG = 2
HINTS = 3


def problems_of(exercise: Exercise) -> Iterator[str]:
    """Give what is wrong with the files of an exercise."""
    folder = exercise.folder
    missing = [name for name in sorted(FILES) if not (folder / name).exists()]
    if missing:
        yield f"{folder}: {', '.join(missing)} is missing: write it"
        return
    for path in sorted(folder.iterdir()):
        if path.name not in FILES:
            yield f"{path}: a stray file: remove it"
    tasks = set(exercise.tasks())
    if tasks != set(range(1, len(tasks) + 1)) or not tasks:
        yield f"{folder}/README.md: the numbered tasks are {sorted(tasks)}: begin each with '1. **…**'"
    stub = exercise.stub.read_text()
    todo = {
        int(number) for found in re.findall(r"TODO ([\d and]+):", stub) for number in re.findall(r"\d", found)
    }
    if todo != tasks:
        yield f"{folder}/tasks.py: it has TODO {sorted(todo)}, and README.md the tasks {sorted(tasks)}"
    if len(stub.splitlines()) > MOST_LINES:
        yield f"{folder}/tasks.py: more than {MOST_LINES} lines: shorten it"
    if "TODO" in exercise.solution.read_text():
        yield f"{exercise.solution}: a TODO is left: solve it"
    checks = {
        int(number) for number in re.findall(r"^def task_(\d+)\(", exercise.check.read_text(), re.MULTILINE)
    }
    if checks != tasks:
        yield f"{folder}/check.py: it checks the tasks {sorted(checks)}, and README.md has {sorted(tasks)}"
    for number in sorted(tasks):
        if len(hints := exercise.hints(number)) != HINTS or not all(hints):
            yield f"{folder}/hints.md: task {number} has {len(hints)} hints: write {HINTS}, none empty"
    if len(exercise.wrong) < LEAST_WRONG:
        yield f"{folder}/.author/wrong: {len(exercise.wrong)} wrong answers: write at least {LEAST_WRONG}"
    for path in exercise.wrong:
        if not message_of(path):
            yield f"{path}: begin it with a docstring, the message that it must get"
    if not exercise.has_own_check():
        yield f"{folder}/check.py: changed: in exercises/, write sha256sum */*/check.py > SHA256SUMS"


def problems_of_all(exercises: list[Exercise]) -> Iterator[str]:
    """Give what is wrong with the list of exercises."""
    for kind, values in (
        ("id", [one.id for one in exercises]),
        ("folder", [one.folder for one in exercises]),
    ):
        for value, count in Counter(values).items():
            if count > 1:
                yield f"manifest.toml: the {kind} {value} stands there {count} times: each is there once"
    listed = {one.folder for one in exercises}
    for readme in sorted(EXERCISES.glob("*/*/README.md")):
        if readme.parent not in listed:
            yield f"{readme.parent}: not in manifest.toml: add it, or remove the folder"


def message_of(wrong: Path) -> str:
    """Return the message that a wrong answer must get."""
    try:
        return ast.get_docstring(ast.parse(wrong.read_text())) or ""
    except SyntaxError:
        return ""
