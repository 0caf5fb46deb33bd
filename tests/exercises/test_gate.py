"""Each exercise: the stub fails, the solution passes, and each wrong answer gets its own message."""

import shutil
from pathlib import Path

import pytest

from lab.workshop import manifest
from lab.workshop.manifest import Exercise, load
from lab.workshop.verdicts import NOT_ATTEMPTED, PASSED
from tests.exercises.conftest import Check
from tests.exercises.gate import message_of, problems_of, problems_of_all

ALL = load()
# The first of each exercise is checked in every run of the tests, the others with `-m slow`; there, too, are
# the stubs and wrong answers whose checks take many seconds.
STUBS = [pytest.param(one, id=one.id, marks=[pytest.mark.slow] if one.waits else []) for one in ALL]
WRONG = [
    pytest.param(
        one, path, id=f"{one.id}-{path.stem}", marks=[pytest.mark.slow] if number or one.waits else []
    )
    for one in ALL
    for number, path in enumerate(one.wrong)
]


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_there_are_enough_exercises_for_each_notebook() -> None:
    parts = [one.part for one in ALL]
    assert len(ALL) >= 44
    assert len(WRONG) >= 2 * len(ALL)
    assert {f"{number:02}" for number in range(1, 16)} == set(parts)
    assert all(parts.count(part) >= 2 for part in set(parts))
    assert all(parts.count(part) >= 4 for part in ("03", "08", "09", "10"))
    assert {one.part for one in ALL if one.fast_track} == set(parts)
    assert parts == sorted(parts)


def test_the_list_has_each_exercise_once() -> None:
    assert list(problems_of_all(ALL)) == []
    assert list(problems_of_all([*ALL, ALL[0]])) != []


@pytest.mark.parametrize("exercise", ALL, ids=lambda one: one.id)
def test_an_exercise_is_complete(exercise: Exercise) -> None:
    assert list(problems_of(exercise)) == []


@pytest.mark.parametrize("exercise", STUBS)
def test_a_stub_is_not_attempted_and_no_task_of_it_is_done(exercise: Exercise, check: Check) -> None:
    verdict = check(exercise.id, exercise.stub)
    assert verdict.kind == NOT_ATTEMPTED, verdict.text()
    assert [line.number for line in verdict.lines if line.kind == PASSED] == [], verdict.text()
    assert all(line.saw and line.means for line in verdict.lines), verdict.text()


@pytest.mark.parametrize("exercise", ALL, ids=lambda one: one.id)
def test_a_solution_passes(exercise: Exercise, check: Check) -> None:
    verdict = check(exercise.id, exercise.solution)
    assert verdict.passed, verdict.text()
    assert [line.number for line in verdict.lines] == sorted(exercise.tasks())


@pytest.mark.parametrize(("exercise", "wrong"), WRONG)
def test_a_wrong_answer_gets_its_own_message(exercise: Exercise, wrong: Path, check: Check) -> None:
    verdict = check(exercise.id, wrong)
    assert not verdict.passed, verdict.text()
    assert message_of(wrong) in one_line(verdict.text(1000)), verdict.text()


# --- The gate itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("hints.md", "3. `@app.task`", "", "task 1 has 2 hints: write 3"),
        ("tasks.py", "# TODO 2: add the tax.", "", "it has TODO [1], and README.md the tasks [1, 2]"),
        ("check.py", "def task_2(", "def check_2(", "it checks the tasks [1], and README.md has [1, 2]"),
        ("check.py", "100, 10", "100, 20", "changed: in exercises/, write sha256sum"),
        ("notes.txt", "", "note", "notes.txt: a stray file: remove it"),
        (".author/solution.py", "return", "# TODO\n    return", "a TODO is left: solve it"),
        (".author/wrong/no_return.py", '"""there is no return"""', "", "begin it with a docstring"),
        ("README.md", "1. **", "1. ", "the numbered tasks are [2]"),
    ],
)
def test_the_gate_finds_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, problem: str
) -> None:
    copy = tmp_path / "01_basics" / "add_tax"
    shutil.copytree(ALL[0].folder, copy)
    shutil.copy(manifest.EXERCISES / manifest.SUMS, tmp_path)
    path = copy / file
    before = path.read_text() if path.exists() else ""
    assert old in before
    path.write_text(before.replace(old, new, 1) if old else new)
    monkeypatch.setattr(manifest, "EXERCISES", tmp_path)
    found = list(problems_of(Exercise(ALL[0].id, copy, 5)))
    assert any(problem in one for one in found), found
