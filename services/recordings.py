"""Recordings that users upload: to disk piece by piece, and under their name only when all of it is there.

What to learn here: the name of a file from outside is never used, and its kind is read from its bytes. The
name here is the hash of what is in it, so the same recording that comes again is the same file.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from settings import settings

FOLDER = "recordings"  # in the data folder
BEGINNING = 12  # bytes that tell the kind of a file


class Draft:
    """A recording that arrives."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._beginning = b""

    def write(self, data: bytes) -> None:
        """Add what has arrived. Raises `ValueError` as soon as it cannot be a recording."""
        if len(self._beginning) < BEGINNING:
            self._beginning += data[: BEGINNING - len(self._beginning)]
            if len(self._beginning) == BEGINNING:
                suffix_of(self._beginning)
        self._hash.update(data)
        self._file.write(data)

    def keep(self) -> str:
        """Give the file its name, and return its path in the data folder.

        Raises `ValueError` for what is no recording, and `OSError` for a full disk.
        """
        path = f"{FOLDER}/{self._hash.hexdigest()}{suffix_of(self._beginning)}"
        self._file.flush()
        os.fsync(self._file.fileno())  # a full disk may be reported only here
        os.replace(self._file.name, settings.data_dir / path)
        return path


@contextmanager
def draft() -> Iterator[Draft]:
    """Open a draft for a block. What is not kept is removed. A SIGKILL may leave a hidden `.part` file."""
    folder = settings.data_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{secrets.token_hex(8)}.part"
    try:
        with part.open("xb") as file:
            yield Draft(file)
    finally:
        part.unlink(missing_ok=True)


def suffix_of(beginning: bytes) -> str:
    """Return .wav or .flac for the first bytes of a file. Raises `ValueError` for another one."""
    if beginning[:4] == b"RIFF" and beginning[8:] == b"WAVE":
        return ".wav"
    if beginning[:4] == b"fLaC":
        return ".flac"
    raise ValueError(f"the recording begins with {beginning!r}: send a WAV or a FLAC file")
