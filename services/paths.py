"""Paths that come from outside, and files that are never seen half-written.

A message on a queue may hold any path. `inside` lets through only what lies in one allowed folder.
`atomic_write` shows a new file under its name only when all of it is on the disk.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def inside(root: Path, path: str | Path, *, field: str = "path") -> Path:
    """Return the real, absolute path of `path`, which need not exist, if it lies in the folder `root`.

    A relative `path` starts at `root`. `field` is the argument's name in the error.

    Raises `ValueError` for a path that is empty or cannot exist, one with `..`, an absolute path outside
    `root`, and a path that leaves `root` through a symbolic link.
    """
    text = os.fspath(path)
    if not text or "\0" in text or any(len(part.encode()) > 255 for part in Path(text).parts):
        raise ValueError(f"{field}={text!r}: not a path; give a path inside {root}")
    if ".." in Path(text).parts:
        raise ValueError(f"{field}={text!r}: '..' is not allowed; give a path inside {root}")
    # The links are followed first: the place where the file really is decides.
    real_root = Path(os.path.realpath(root))
    real = Path(os.path.realpath(real_root / text))
    if not real.is_relative_to(real_root):
        raise ValueError(f"{field}={text!r}: leads outside {root}; give a path inside it")
    return real


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that gets the name `path` only when the block ends without an error.

    Until then, and after an error (a full disk, a soft time limit), `path` is what it was before. Missing
    folders are made. After a SIGKILL or a power cut, a hidden `.part` file may stay beside `path`.
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
