"""The workshop in a notebook. A check runs in a program of its own: the one of ./learn check."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from lab.workshop.manifest import Exercise, load
from lab.workshop.verdicts import Verdict
from settings import ROOT, settings


@dataclass(frozen=True)
class Listed:
    """Exercises, as a table for a notebook."""

    exercises: list[Exercise]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        table = ["| your file | id | minutes |", "|---|---|---|"]
        for one in self.exercises:
            table.append(f"| [{one.title}](../exercises/{one.id}.py) | `{one.id}` | {one.minutes} |")
        text = "\n".join(f"{one.id}: {one.title}" for one in self.exercises)
        return {"text/plain": text, "text/markdown": "\n".join(table)}


def exercises(part: str) -> Listed:
    """Return the exercises of a notebook, such as "09", with the learner's files in place.

    Raises `ValueError` for a notebook that has none.
    """
    from lab.workshop import progress  # late: workers import this package for the learner's file alone

    listed = load()
    progress.copy_stubs(listed)
    found = [one for one in listed if one.part == part]
    if not found:
        raise ValueError(f"part={part!r}: use one of {', '.join(sorted({one.part for one in listed}))}")
    return Listed(found)


def check(name: str) -> Verdict:
    """Check the learner's file of an exercise, and return the verdict with its timeline.

    Raises `ValueError` for a name that is not that of one exercise.
    """
    # The notebook may have a data folder and a database of its own: the check has others.
    own = {"WORKSPACE_DIR": str(settings.workspace_dir)}
    done = subprocess.run(
        [sys.executable, "-m", "lab.cli", "check", name, "--json"],
        cwd=ROOT,
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout:
        raise ValueError(done.stderr.strip().removeprefix("Error: "))
    return Verdict.of(json.loads(done.stdout.splitlines()[-1]))
