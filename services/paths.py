"""Paths that come from outside, and files that are never seen half-written.

A message on a queue may hold any path. `inside` lets through only what lies in one allowed folder.
`atomic_write` shows a new file under its name only when all of it is on the disk.
"""

import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from services.error_texts import shown, some_of

MAX_NAME, MAX_PATH = 255, 4095  # bytes, on Linux; macOS has less room for a path


def inside(root: Path, path: str | Path, *, field: str = "path") -> Path:
    """Return the real, absolute path of `path`, which need not exist, if it lies in the folder `root`.

    A relative `path` starts at `root`. `field` is the argument's name in the error.

    Raises `ValueError` for a path that is empty or cannot exist, one with `..`, an absolute path outside
    `root`, and a path that leaves `root` through a symbolic link.
    """
    text = os.fspath(path)
    refused = f"{field}={shown(text)}"
    if not _can_exist(root, text):
        raise ValueError(f"{refused}: not a path; give a path inside {root}")
    if ".." in Path(text).parts:
        raise ValueError(f"{refused}: '..' is not allowed; give a path inside {root}")
    # The links are followed first: the place where the file really is decides.
    real_root = Path(os.path.realpath(root))
    real = Path(os.path.realpath(real_root / text))
    if not real.is_relative_to(real_root):
        raise ValueError(f"{refused}: leads outside {root}; give a path inside it")
    return real


def _can_exist(root: Path, text: str) -> bool:
    try:
        # The folder's own name may have any bytes, as the file system knows them.
        before = () if Path(text).is_absolute() else root.parts
        names = [*map(os.fsencode, before), *(name.encode() for name in Path(text).parts)]
    except UnicodeEncodeError:  # half a character, as JSON can say it: "\ud800"
        return False
    return (
        bool(text)
        and "\0" not in text
        and max(map(len, names)) <= MAX_NAME
        and sum(map(len, names)) + len(names) <= MAX_PATH
    )


def what_is_there(root: Path, path: Path, suffixes: Collection[str] = ()) -> str:
    """Return "there are images/a.jpg, images/b.jpg": for an error about a `path` that leads to no file.

    `path` comes from `inside(root, …)`. Named is what lies in its folder or, if that is missing, in the next
    one above it, as paths that start at `root`. With `suffixes` such as ".jpg", these are the files that end
    so, and folders. Hidden files are left out.
    """
    root = Path(os.path.realpath(root))
    folder = path.parent if path != root else root
    while folder != root and not folder.is_dir():
        folder = folder.parent
    names = [
        str(entry.relative_to(root)) + "/" * entry.is_dir()
        for entry in (folder.iterdir() if folder.is_dir() else ())
        if not entry.name.startswith(".")
        and (entry.is_dir() or not suffixes or entry.suffix.lower() in suffixes)
    ]
    return f"there are {some_of(names)}" if names else "there is nothing"


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that gets the name `path` only when the block ends without an error.

    Until then, and after an error (a full disk, a soft time limit), `path` is what it was before. Missing
    folders are made. After a SIGKILL or a power cut, a hidden `.part` file may stay beside `path`.

    Several processes may write the same path: each has a draft of its own, and the last one to end stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a full disk may be reported only here
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
