"""Progress and the learner's files go by ids: no update, rename or new order of the course touches them."""

from dataclasses import replace
from pathlib import Path

import pytest

from lab.workshop import progress
from lab.workshop.manifest import Exercise, find, load
from settings import settings


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Exercise]:
    """Return three exercises with files of their own, and a workspace."""
    monkeypatch.setattr(settings, "workspace_dir", tmp_path / "workspace")
    exercises = []
    for name in ("one", "two", "three"):
        folder = tmp_path / "course" / "01_basics" / name
        folder.mkdir(parents=True)
        (folder / "tasks.py").write_text(f"# the stub of {name}\n")
        (folder / "README.md").write_text(f"# {name}\n\n1. **Do it.**\n")
        exercises.append(Exercise(f"basics/{name}", folder, 5))
    return exercises


def test_a_renamed_and_reordered_course_keeps_files_and_progress(
    course: list[Exercise], tmp_path: Path
) -> None:
    one, two, three = course
    progress.copy_stubs(course)
    progress.file_of(one).write_text("mine\n")
    progress.mark_passed(one)
    progress.mark_opened(two)
    moved = one.folder.rename(tmp_path / "course" / "07_other_name")
    (moved / "tasks.py").write_text("# the stub is another now\n")
    (three.folder / "tasks.py").write_text("# a better stub\n")
    newer = [three, two, replace(one, folder=moved)]
    assert progress.copy_stubs(newer) == ["basics/one.py"]
    assert progress.file_of(newer[2]).read_text() == "mine\n"
    assert progress.file_of(three).read_text() == "# a better stub\n"
    assert list(progress.read().passed) == ["basics/one"]
    assert progress.read().last == "basics/two"


def test_an_exercise_that_is_gone_leaves_progress_and_changed_files(course: list[Exercise]) -> None:
    one, *others = course
    progress.copy_stubs(course)
    progress.file_of(one).write_text("mine\n")
    progress.mark_passed(one)
    progress.copy_stubs(others)
    assert progress.file_of(one).read_text() == "mine\n"
    assert list(progress.read().passed) == ["basics/one"]


def test_the_day_of_the_first_pass_stays_and_a_reset_takes_it_away(course: list[Exercise]) -> None:
    progress.copy_stubs(course)
    progress.mark_passed(course[0])
    with progress._changed() as state:
        state.passed["basics/one"] = "2026-01-01"
    progress.mark_passed(course[0])
    assert progress.read().passed == {"basics/one": "2026-01-01"}
    progress.reset(course[0], course)
    assert progress.read().passed == {}


def test_a_part_of_a_name_finds_the_only_one_that_has_it() -> None:
    exercises = load()
    assert find("retries/backoff", exercises).id == "retries/backoff"
    assert find("add_tax", exercises).id == "basics/add_tax"
    for name in ("", "retries/", "nosuch", "../x"):
        with pytest.raises(ValueError, match="must name one exercise of"):
            find(name, exercises)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"passed": {}, "files": {"../../x": "evil"}, "last": ""}',
        '{"passed": {}, "files": {"a/b/../c": "evil"}, "last": ""}',
        '{"passed": {}, "files": {"/a/b": "evil"}, "last": ""}',
        '{"passed": 5, "files": {}, "last": ""}',
    ],
)
def test_a_file_that_is_no_export_is_refused(course: list[Exercise], tmp_path: Path, text: str) -> None:
    (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(ValueError, match=r"not a file of|is not the id"):
        progress.take_over(tmp_path / "bundle.json", course)
    assert not settings.workspace_dir.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"passed": []}', '{"passed": {}, "last"', "\x00", "\ud800"])
def test_a_broken_progress_file_is_kept_aside(course: list[Exercise], text: str) -> None:
    progress.copy_stubs(course)
    path = settings.workspace_dir / "progress.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    found = progress.read()
    assert found.passed == {}
    assert found.kept_aside == path.with_suffix(".broken.json")
    assert found.kept_aside.read_bytes() == text.encode(errors="surrogatepass")
    progress.mark_passed(course[0])
    assert list(progress.read().passed) == ["basics/one"]


def test_it_is_said_where_a_broken_file_lies(
    course: list[Exercise], capsys: pytest.CaptureFixture[str]
) -> None:
    progress.copy_stubs(course)
    (settings.workspace_dir / "progress.json").write_text("{")
    progress.show(course)
    assert "progress.broken.json" in capsys.readouterr().out.replace("\n", "")
