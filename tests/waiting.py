"""Waiting for something that must happen, with a limit that fails loudly."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

Value = TypeVar("Value")


def wait_for(what: str, look: Callable[[], Value], seconds: float = 15) -> Value:
    """Call `look` until it gives something true, and return that. Fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what} (last seen: {value!r})")
        time.sleep(0.01)
    return value


def lines(path: Path) -> list[str]:
    """Return the lines of a file that may not exist yet."""
    return path.read_text().splitlines() if path.exists() else []


def processes_of(folder: Path | str) -> list[psutil.Process]:
    """Return the live processes that belong to the sandbox in `folder`, by command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline() + list(process.environ().values())
            if process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in words):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
