"""A story shows each step as it is written, and stops at one that does not do what it says."""

import subprocess
import sys
from operator import itemgetter
from pathlib import Path

import pytest

from lab.sandbox import Sandbox
from lab.serving import LoneWorker
from settings import ROOT
from tasks.advanced_tasks import prioritized_task

STORY = '''"""A story of two steps."""

from lab.story import Story
from tasks.basic_tasks import add

story = Story(__doc__, queues=["basic"])


@story.step(expect=3)
def first() -> int:
    """Add two numbers.

    The worker adds them.
    It tells the sum.
    """
    # A comment of the step.
    return add.delay(1, 2).get(timeout=10)


@story.step(expect={expect})
def second() -> int:
    """Add two others."""
    return {result}


story.main()
'''
FIRST = """\
1. Add two numbers
  The worker adds them.
  It tells the sum.
    # A comment of the step.
    return add.delay(1, 2).get(timeout=10)
  -> 3
"""


def tell(tmp_path: Path, expect: str, result: str = "7") -> subprocess.CompletedProcess[str]:
    script = tmp_path / "story.py"
    script.write_text(STORY.format(expect=expect, result=result))
    return subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_step_shows_its_docstring_as_title_and_explanation_and_its_code(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    program = tell(tmp_path, expect="7")
    assert (program.returncode, program.stderr) == (0, "")
    assert FIRST in program.stdout
    assert "2. Add two others\n    return 7\n  -> 7\n" in program.stdout


@pytest.mark.parametrize(
    ("expect", "shown"),
    [
        ("8", "8"),
        ("lambda value: value == 8", "value == 8"),
        ("[3 +\n    5]", "[3 + 5]"),
        ("str.isdigit", "str.isdigit"),
    ],
)
def test_a_step_that_gives_something_else_says_what_was_expected(
    sandbox: Sandbox, tmp_path: Path, expect: str, shown: str
) -> None:
    program = tell(tmp_path, expect, result="'x'")
    assert program.returncode == 1
    assert program.stderr == f"Error: Step 2 (Add two others) gave 'x'; expected {shown}\n"


def test_a_step_that_raises_is_told_in_one_line(sandbox: Sandbox, tmp_path: Path) -> None:
    program = tell(tmp_path, expect="7", result="1 / 0")
    assert program.returncode == 1
    assert program.stderr == (
        "Error: Step 2 (Add two others) raised ZeroDivisionError('division by zero').\n"
    )


def test_a_story_relies_on_no_worker_that_may_end_before_it_does(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.start_worker(["basic"])  # this one ends with another program, which is this test
    program = tell(tmp_path, expect="7")
    assert (program.returncode, program.stderr) == (0, "")
    assert "This program uses a worker of its own" in program.stdout


def test_a_lone_worker_serves_its_queue_in_the_order_of_priorities(sandbox: Sandbox) -> None:
    sandbox.start_worker(["basic", "advanced", "health"])
    alone = LoneWorker(sandbox)
    sent = [
        prioritized_task.apply_async(args=[str(priority)], queue=alone.queue, priority=priority)
        for priority in (9, 0, 5, 3, 7, 1, 8, 2, 6, 4)
    ]
    with alone:
        values = [result.get(timeout=20) for result in sent]
    order = [value["label"] for value in sorted(values, key=itemgetter("started"))]
    assert order == list("0123456789")
