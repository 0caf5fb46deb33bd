"""What tests wait for, with limits that fail loudly."""

from pathlib import Path

import psutil

from lab.sandbox import Sandbox
from lab.waiting import wait_for

__all__ = ["lines", "processes_of", "wait_for", "wait_until_gone", "wait_until_idle"]


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


def wait_until_idle(sandbox: Sandbox, queue: str) -> None:
    """Wait until nothing is queued, running or waiting for a retry."""
    broker = sandbox.broker.client()
    wait_for("all is done", lambda: broker.llen(queue) == broker.hlen("unacked") == 0)


def wait_until_gone(folder: Path) -> None:
    """Wait until nothing of the sandbox in `folder` is left: no process, no folder."""
    wait_for("all processes have ended", lambda: not processes_of(folder), seconds=5)
    wait_for("the folder is gone", lambda: not folder.exists(), seconds=5)
