"""The private folder of a sandbox: taken by one supervisor at a time, and removed at the end."""

import contextlib
import fcntl
import os
import shutil
import socket
import time
from pathlib import Path

LOCK = "supervisor.lock"
CONTROL_SOCKET = "control.sock"
DYING_SECONDS = 2.0  # a process that was killed holds its locks a moment longer than its connections


class Taken(Exception):
    """Another supervisor has this folder, or its watchdog cleans up there."""


def take_folder(folder: Path) -> int:
    """Make the private folder `folder`, or take over one whose supervisor has crashed. Return the lock.

    Raises `Taken` if a supervisor is alive there, and `OSError` if the folder is not ours alone.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        _check(folder)
    lock = _lock(folder)
    for stale in folder.glob("*.sock"):
        stale.unlink(missing_ok=True)
    return lock


def _check(folder: Path) -> None:
    details = folder.lstat()
    if details.st_uid != os.getuid() or details.st_mode & 0o077 or not folder.is_dir():
        raise OSError(
            f"The sandbox folder {folder} belongs to somebody else, or others may enter it. "
            "Remove it, or set SANDBOX_DIR to another folder."
        )
    # It will be removed at the end: never take a folder with somebody's files.
    if any(folder.iterdir()) and not (folder / LOCK).exists():
        raise OSError(
            f"The folder {folder} has files that are not a sandbox's. "
            "Set SANDBOX_DIR to a path that does not exist yet."
        )


def _lock(folder: Path) -> int:
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # another supervisor has just removed the folder
        raise Taken from None
    except OSError:
        with contextlib.suppress(OSError):  # the disk is full: leave no folder without a lock
            folder.rmdir()
        raise
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino != (folder / LOCK).stat().st_ino:
            raise BlockingIOError  # another supervisor has just removed the file
    except (BlockingIOError, FileNotFoundError):
        os.close(lock)
        raise Taken from None
    return lock


def remove_folder(folder: Path) -> None:
    """Remove a sandbox folder. Its lock goes last: without it, the rest would look like somebody's files."""
    with contextlib.suppress(FileNotFoundError):  # somebody has removed it already
        for entry in folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != LOCK:
                entry.unlink(missing_ok=True)
    (folder / LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a supervisor that starts at this moment has put its lock there
        folder.rmdir()


def remove_what_is_left(folder: Path) -> None:
    """Remove a folder whose supervisor and watchdog were both killed, and no other."""
    deadline = time.monotonic() + DYING_SECONDS
    while folder.exists():
        try:
            lock = take_folder(folder)
        except OSError:  # it is not a sandbox's
            return
        except Taken:
            if _is_served(folder) or time.monotonic() > deadline:
                return
            time.sleep(0.01)
        else:
            remove_folder(folder)
            os.close(lock)


def _is_served(folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(str(folder / CONTROL_SOCKET))
        except OSError:
            return False
    return True
