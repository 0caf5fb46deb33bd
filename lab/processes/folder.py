"""The private folder of a sandbox: taken by one supervisor at a time, and removed at the end."""

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

LOCK = "supervisor.lock"


class Busy(Exception):
    """Another supervisor has this folder."""


def take_folder(folder: Path) -> int:
    """Make the private folder `folder`, or take over one whose supervisor has crashed. Return the lock.

    Raises `Busy` if a supervisor is alive there, and `OSError` if the folder is not ours alone.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        details = folder.lstat()
        if details.st_uid != os.getuid() or details.st_mode & 0o077 or not folder.is_dir():
            raise OSError(
                f"The sandbox folder {folder} belongs to somebody else, or others may enter it. "
                "Remove it, or set SANDBOX_DIR to another folder."
            ) from None
        # It will be removed at the end: never take a folder with somebody's files.
        if any(folder.iterdir()) and not (folder / LOCK).exists():
            raise OSError(
                f"The folder {folder} has files that are not a sandbox's. "
                "Set SANDBOX_DIR to a path that does not exist yet."
            ) from None
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # another supervisor has just removed the folder
        raise Busy from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino != (folder / LOCK).stat().st_ino:
            raise BlockingIOError  # another supervisor has just removed the file
    except (BlockingIOError, FileNotFoundError):
        os.close(lock)
        raise Busy from None
    for stale in ("broker.sock", "control.sock", "smtp.sock"):
        (folder / stale).unlink(missing_ok=True)
    return lock


def remove_folder(folder: Path) -> None:
    """Remove a sandbox folder. Its lock goes last: without it, the rest would look like somebody's files."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != LOCK:
            entry.unlink(missing_ok=True)
    (folder / LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a supervisor that starts at this moment has put its lock there
        folder.rmdir()
