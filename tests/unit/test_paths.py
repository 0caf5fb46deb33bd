"""Paths from outside are kept inside; files are whole or not there."""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.error_texts import shown, some_of
from services.paths import atomic_write, inside, what_is_there
from settings import ROOT


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
        "a/" * 2100,
        "\ud800.jpg",
    ],
)
def test_a_path_outside_or_unclear_is_refused_by_name_and_value(root: Path, path: str):
    with pytest.raises(ValueError, match="inside") as refused:
        inside(root, path, field="image_path")
    assert str(refused.value).startswith(f"image_path={shown(path)}: ")


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


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "a/" * 1000])
def test_a_long_path_that_can_exist_is_allowed(root: Path, name: str):
    assert inside(root, name) == root / name


# --- what is there instead ---


def there(root: Path, path: str, *suffixes: str) -> str:
    return what_is_there(root, inside(root, path), suffixes)


@pytest.fixture
def full(root: Path) -> Path:
    """Return the root with a file, a hidden one and a folder of two files."""
    for name in ("orders.csv", ".draft.part", "photos/b.jpg", "photos/a.JPG", "photos/notes.txt"):
        (root / name).touch()
    return root


def test_what_lies_beside_a_missing_file_is_named_by_its_path(full: Path):
    assert there(full, "photos/c.jpg") == "there are photos/a.JPG, photos/b.jpg, photos/notes.txt"
    assert there(full, "c.jpg") == "there are orders.csv, photos/"


def test_with_suffixes_only_such_files_and_folders_are_named(full: Path):
    assert there(full, "photos/c.jpg", ".jpg") == "there are photos/a.JPG, photos/b.jpg"
    assert there(full, "c.jpg", ".jpg") == "there are photos/"
    assert there(full, "photos/c.csv", ".csv") == "there is nothing"


def test_of_a_missing_folder_the_next_one_above_is_named(full: Path):
    assert there(full, "photo/holiday/c.jpg") == there(full, "c.jpg")
    assert there(full, "photos/holiday/c.jpg") == there(full, "photos/c.jpg")


def test_nothing_outside_the_root_is_named(root: Path):
    missing = root / "missing"
    assert what_is_there(missing, missing / "c.jpg") == "there is nothing"
    assert what_is_there(root, root) == "there are photos/"


def test_many_names_are_cut_short(root: Path):
    for number in range(30):
        (root / "photos" / f"{number:02}.jpg").touch()
    assert there(root, "photos/x.jpg").endswith("photos/06.jpg, photos/07.jpg, … and 22 more")


def test_a_few_names_are_listed_and_of_many_the_first():
    assert some_of([]) == "none"
    assert some_of("ba") == "a, b"
    assert some_of(f"{number:04}" for number in range(2008)).endswith("0006, 0007, … and 2,000 more")


# --- files that are whole or not there ---


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


def test_services_and_tasks_write_whole_files_only() -> None:
    """No file gets its name before all of it is there, and no two writers share a draft."""
    sources = [path for folder in ("services", "tasks") for path in (ROOT / folder).rglob("*.py")]
    writing = re.compile(r"""write_(text|bytes)\(|open\(([^)]*, )?["'][wx]|NamedTemporaryFile|mkstemp""")
    assert len(sources) > 20
    assert [path.name for path in sources if writing.search(path.read_text())] == ["paths.py"]


WRITER = """
import sys
from pathlib import Path
from services.paths import atomic_write
for number in range(150):
    with atomic_write(Path(sys.argv[1])) as file:
        file.write(sys.argv[2].encode() * 100_000)
"""


def test_several_processes_write_one_file_and_it_is_always_whole(root: Path):
    path = root / "file.bin"
    path.write_bytes(b"0" * 100_000)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter]) for letter in "abc"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        content = path.read_bytes()
        assert (len(content), len(set(content))) == (100_000, 1)
        seen.add(content[:1])
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(seen) > 1
    assert sorted(os.listdir(root)) == ["file.bin", "photos"]


def limit_file_size() -> None:
    """Let the kernel refuse to write more than 10 kB into one file, as a full disk refuses."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))


def test_the_folder_itself_may_have_a_name_of_any_bytes(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xc3\xbc\xff"))  # as LC_ALL=C may show one
    root.mkdir()
    assert inside(root, "a.csv") == root / "a.csv"
    with pytest.raises(ValueError, match="not a path"):
        inside(root, "\udcff.csv")
