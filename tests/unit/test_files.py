"""Cleanup: what is old goes, what is new, elsewhere or behind a link stays."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.files import cleanup_files
from settings import settings

DAY = timedelta(days=1)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output folder beside files that nobody may touch. Each file has 10 bytes."""
    monkeypatch.setattr(settings, "data_dir", tmp_path / "data")
    make(tmp_path / "secret.txt", days=9)
    make(settings.data_dir / "orders.csv", days=9)
    make(settings.out_dir / "reports" / "old.html", days=9)
    make(settings.out_dir / "reports" / "deep" / "old.pdf", days=2)
    make(settings.out_dir / "reports" / "new.html", days=0)
    make(settings.out_dir / "exports" / "old.csv", days=9)
    return settings.out_dir


def make(path: Path, days: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"0123456789")
    moment = time.time() - days * DAY.total_seconds()
    os.utime(path, (moment, moment))


def everything(root: Path) -> list[str]:
    return sorted(str(path) for path in root.rglob("*"))


# The events of Python's audit hooks come right before the act. So a test can do something at the worst
# moment, with the real file system. A hook cannot be taken away, so there is one, and it asks here.
_reaction: Callable[[str, tuple[Any, ...]], None] | None = None


def _ask(event: str, arguments: tuple[Any, ...]) -> None:
    if _reaction and event == "os.remove":
        _reaction(event, arguments)


sys.addaudithook(_ask)


@contextmanager
def when_a_file_is_removed(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` once, right before the first file is removed."""
    global _reaction

    def react(event: str, arguments: tuple[Any, ...]) -> None:
        global _reaction
        _reaction = None
        act()

    _reaction = react
    try:
        yield
    finally:
        _reaction = None


def test_nothing_is_removed_unless_asked(out: Path, tmp_path: Path):
    before = everything(tmp_path)
    result = cleanup_files("reports", DAY)
    assert result == {
        "folder": str(out / "reports"),
        "dry_run": True,
        "removed": ["old.html", "deep/old.pdf"],
        "bytes": 20,
        "kept": 1,
        "skipped": {},
    }
    assert everything(tmp_path) == before


def test_old_files_are_removed_and_all_else_stays(out: Path, tmp_path: Path):
    before = everything(tmp_path)
    planned = cleanup_files("reports", DAY)
    assert cleanup_files("reports", DAY, dry_run=False) == planned | {"dry_run": False}
    removed = {str(out / "reports" / "old.html"), str(out / "reports" / "deep" / "old.pdf")}
    assert everything(tmp_path) == sorted(set(before) - removed)


def test_a_second_cleanup_finds_nothing(out: Path):
    cleanup_files("reports", DAY, dry_run=False)
    again = cleanup_files("reports", DAY, dry_run=False)
    assert (again["removed"], again["bytes"], again["kept"]) == ([], 0, 1)


def test_the_whole_output_folder_may_be_cleaned_but_not_the_data_folder(out: Path, tmp_path: Path):
    assert len(cleanup_files(".", DAY, dry_run=False)["removed"]) == 3
    assert (settings.data_dir / "orders.csv").exists()
    with pytest.raises(ValueError, match="leads outside"):
        cleanup_files(settings.data_dir, DAY, dry_run=False)


@pytest.mark.parametrize(
    "folder", ["/", "", "..", "../..", "reports/../..", "/etc", "missing", "exports/old.csv"]
)
def test_a_folder_that_is_not_in_the_output_folder_is_refused(out: Path, tmp_path: Path, folder: str):
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="folder=") as refused:
        cleanup_files(folder, DAY, dry_run=False)
    assert repr(folder) in str(refused.value)
    assert everything(tmp_path) == before


def test_a_folder_that_is_a_symlink_is_refused(out: Path, tmp_path: Path):
    (out / "outside").symlink_to(tmp_path)
    (out / "beside").symlink_to("reports")
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="folder='outside': leads outside"):
        cleanup_files("outside", DAY, dry_run=False)
    with pytest.raises(ValueError, match="folder='beside/': is a symbolic link"):
        cleanup_files("beside/", DAY, dry_run=False)
    assert everything(tmp_path) == before


def test_symlinks_are_neither_followed_nor_removed(out: Path, tmp_path: Path):
    (out / "reports" / "file").symlink_to(tmp_path / "secret.txt")
    (out / "reports" / "folder").symlink_to(tmp_path)
    (out / "reports" / "nowhere").symlink_to("missing")
    os.mkfifo(out / "reports" / "pipe")
    before = everything(tmp_path)
    result = cleanup_files("reports", timedelta(microseconds=1), dry_run=False)
    assert result["skipped"] == dict.fromkeys(["file", "folder", "nowhere", "pipe"], "Not a regular file")
    assert len(result["removed"]) == 3
    assert len(everything(tmp_path)) == len(before) - 3


@pytest.mark.parametrize("age", [timedelta(0), -DAY])
def test_an_age_that_is_not_positive_is_refused(out: Path, age: timedelta):
    with pytest.raises(ValueError, match=r"older_than=.*: must be more than 0"):
        cleanup_files("reports", age, dry_run=False)
    assert (out / "reports" / "new.html").exists()


def test_a_file_that_is_written_to_meanwhile_is_kept(out: Path):
    make(out / "reports" / "z.html", days=9)
    with when_a_file_is_removed((out / "reports" / "z.html").touch):
        result = cleanup_files("reports", DAY, dry_run=False)
    assert "z.html" not in result["removed"]
    assert result["kept"] == 2
    assert (out / "reports" / "z.html").exists()


@pytest.mark.parametrize("name", ["old.html", "z.html"])
def test_a_file_that_vanishes_meanwhile_is_reported(out: Path, name: str):
    """`old.html` vanishes between the last look at it and its removal, `z.html` before it is looked at."""
    make(out / "reports" / "z.html", days=9)
    with when_a_file_is_removed(lambda: shutil.move(out / "reports" / name, out / "moved")):
        result = cleanup_files("reports", DAY, dry_run=False)
    assert result["skipped"] == {name: "No such file or directory"}
    assert name not in result["removed"]
    assert result["bytes"] == 20


def test_a_folder_that_is_swapped_for_a_symlink_meanwhile_is_not_entered(out: Path, tmp_path: Path):
    make(tmp_path / "elsewhere" / "old.pdf", days=9)

    def swap() -> None:
        shutil.rmtree(out / "reports" / "deep")
        (out / "reports" / "deep").symlink_to(tmp_path / "elsewhere")

    with when_a_file_is_removed(swap):
        result = cleanup_files("reports", DAY, dry_run=False)
    assert result["removed"] == ["old.html"]
    assert (tmp_path / "elsewhere" / "old.pdf").exists()
