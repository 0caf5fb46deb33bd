"""The learner's copies of the notebooks: an update never meets what the learner has written."""

from pathlib import Path

import pytest

from lab.workspace import RECORD, documents, reset, update


@pytest.fixture
def course(tmp_path: Path) -> Path:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("00_start.ipynb", "05_schedules.ipynb", "README.md"):
        (folder / name).write_text(f"{name}, first edition")
    return folder


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    return tmp_path / "workspace" / "notebooks"


def texts(copies: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in copies.iterdir() if path.name != RECORD}


def test_copies_that_are_missing_are_made_and_unchanged_ones_follow_the_course(
    course: Path, copies: Path
) -> None:
    assert update(documents(course), copies) == []
    assert texts(copies) == {path.name: path.read_text() for path in course.iterdir()}
    (course / "00_start.ipynb").write_text("second edition")
    (course / "README.md").unlink()
    assert update(documents(course), copies) == []
    assert texts(copies) == {
        "00_start.ipynb": "second edition",
        "05_schedules.ipynb": "05_schedules.ipynb, first edition",
    }


def test_what_the_learner_has_changed_stays_and_is_named_when_the_course_has_a_newer_one(
    course: Path, copies: Path
) -> None:
    update(documents(course), copies)
    (copies / "00_start.ipynb").write_text("mine")
    (copies / "my own.ipynb").write_text("also mine")
    assert update(documents(course), copies) == []  # nothing newer is there
    (course / "00_start.ipynb").write_text("second edition")
    for _ in range(2):
        assert update(documents(course), copies) == ["00_start.ipynb"]
        assert texts(copies)["00_start.ipynb"] == "mine"
    (course / "00_start.ipynb").unlink()
    assert update(documents(course), copies) == []
    assert texts(copies)["00_start.ipynb"] == "mine"
    assert texts(copies)["my own.ipynb"] == "also mine"


def test_a_reset_gives_the_original_and_keeps_the_other_aside(course: Path, copies: Path) -> None:
    update(documents(course), copies)
    (copies / "05_schedules.ipynb").write_text("mine")
    (course / "05_schedules.ipynb").write_text("second edition")
    aside = reset(documents(course), copies, "05")
    assert aside.read_text() == "mine"
    assert (copies / "05_schedules.ipynb").read_text() == "second edition"
    (course / "05_schedules.ipynb").write_text("third edition")
    assert update(documents(course), copies) == []  # it follows the course again
    assert (copies / "05_schedules.ipynb").read_text() == "third edition"


@pytest.mark.parametrize("name", ["", "0", "99", "../00_start.ipynb"])
def test_a_name_that_is_not_of_one_notebook_is_refused(course: Path, copies: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must begin the name of one of 00_start"):
        reset(documents(course), copies, name)


@pytest.mark.parametrize("broken", ["", "{", "[]", "null", '{"00_start.ipynb": 5}'])
def test_a_broken_record_loses_nothing(course: Path, copies: Path, broken: str) -> None:
    update(documents(course), copies)
    (copies / "00_start.ipynb").write_text("mine")
    (copies / RECORD).write_text(broken)
    (course / "00_start.ipynb").write_text("second edition")
    assert update(documents(course), copies) == ["00_start.ipynb"]
    assert texts(copies)["00_start.ipynb"] == "mine"
