"""The logs of a sandbox's processes, and what they tell when a process does not start."""

import os
from pathlib import Path

LEAST_SPACE = 1_000_000  # bytes; with less, programs fail in ways that do not name the cause


def open_log(log: Path) -> int:
    """Return a descriptor of a new, empty log file."""
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)


def why(log: Path, folder: Path) -> str:
    """Return why a process did not start that writes to `log` and works in `folder`.

    A full disk, or else the last lines of the log: on a full disk they may be missing or mislead.
    """
    for place in (log.parent, folder):
        if is_full(place):
            return f"No space left on the device of {place}: make room there."
    lines = log.read_text(errors="replace").strip().splitlines()[-15:] or ["(empty)"]
    return "\n".join([f"The last lines of {log}:", *(f"  {line}" for line in lines)])


def is_full(folder: Path) -> bool:
    """Whether hardly anything can be written in a folder."""
    device = os.statvfs(folder)
    has_no_inode = device.f_files > 0 and device.f_favail == 0  # some file systems do not count them: 0 of 0
    return has_no_inode or device.f_bavail * device.f_frsize < LEAST_SPACE
