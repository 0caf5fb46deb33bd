"""Paths from outside are kept inside; files are whole or not there."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.paths import atomic_write, inside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "photos").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    return folder


def test_a_relative_path_starts_at_the_root(root: Path):
    assert inside(root, "photos/a.jpg") == root / "photos" / "a.jpg"


def test_an_absolute_path_inside_is_allowed(root: Path):
    assert inside(root, root / "photos") == root / "photos"


def test_the_root_itself_is_allowed(root: Path):
    assert inside(root, ".") == root


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "photos/../../secret.txt",
        "photos/../photos",
        "/etc/passwd",
        "/",
        "",
        "a\0b",
        "a" * 256,
    ],
)
def test_a_path_outside_or_unclear_is_refused_by_name_and_value(root: Path, path: str):
    with pytest.raises(ValueError, match="inside") as refused:
        inside(root, path, field="image_path")
    assert str(refused.value).startswith(f"image_path={path!r}: ")


def test_a_sibling_folder_with_the_same_beginning_is_outside(root: Path):
    with pytest.raises(ValueError, match="leads outside"):
        inside(root, f"{root}-other/a.jpg")


def test_a_symlink_that_leads_outside_is_refused(root: Path, tmp_path: Path):
    (root / "file").symlink_to(tmp_path / "secret.txt")
    (root / "folder").symlink_to(tmp_path)
    for path in ["file", "folder/secret.txt", "folder/new.txt"]:
        with pytest.raises(ValueError, match="leads outside"):
            inside(root, path)


def test_a_symlink_that_stays_inside_is_followed(root: Path):
    (root / "latest").symlink_to("photos")
    assert inside(root, "latest/a.jpg") == root / "photos" / "a.jpg"


def test_a_root_behind_a_symlink_works(root: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(root)
    assert inside(tmp_path / "link", "photos/a.jpg") == root / "photos" / "a.jpg"


def test_a_circle_of_symlinks_gives_a_path_that_cannot_be_opened(root: Path):
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        inside(root, "a").open()


def test_a_file_appears_whole_and_folders_are_made(root: Path):
    path = root / "new" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file.bin"]


def test_an_error_in_the_middle_leaves_the_old_file_and_nothing_else(root: Path):
    path = root / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(root)) == ["file.bin", "photos"]


def write_half(path: Path) -> None:
    with atomic_write(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt


def run_in_a_process(lines: str, path: Path, prepare: Callable[[], None] | None = None) -> str:
    """Run `lines` in a new process while `file` is being written as `path`, and return its error output."""
    code = f"""
import os, pathlib, signal, sys
from services.paths import atomic_write
with atomic_write(pathlib.Path(sys.argv[1])) as file:
    {lines}
"""
    command = [sys.executable, "-c", code, str(path)]
    child = subprocess.run(command, preexec_fn=prepare, capture_output=True, text=True, timeout=60)
    assert child.returncode
    return child.stderr


def test_a_full_disk_leaves_the_old_file_and_nothing_else(root: Path):
    path = root / "file.bin"
    path.write_bytes(b"old")
    error = run_in_a_process("file.write(bytes(100_000))", path, limit_file_size)
    assert "OSError: [Errno 27] File too large" in error
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(root)) == ["file.bin", "photos"]


def test_a_killed_process_leaves_the_old_file_and_a_hidden_rest(root: Path):
    path = root / "file.bin"
    path.write_bytes(b"old")
    run_in_a_process("file.write(bytes(100_000)); os.kill(os.getpid(), signal.SIGKILL)", path)
    assert path.read_bytes() == b"old"
    (rest,) = set(os.listdir(root)) - {"file.bin", "photos"}
    assert rest.startswith(".")
    assert rest.endswith(".part")


def limit_file_size() -> None:
    """Let the kernel refuse to write more than 10 kB into one file, as a full disk refuses."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
