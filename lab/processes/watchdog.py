"""A second small process: it cleans up after a supervisor that was killed."""

import contextlib
import os
import signal
from pathlib import Path
from typing import NoReturn

from lab.processes.folder import remove_folder


class Watchdog:
    """A process that outlives a killed supervisor just long enough to clean up after it."""

    def __init__(self, folder: Path) -> None:
        reader, self._writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._writer)
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            self._watch(reader, folder)
        os.close(reader)

    def add(self, pid: int) -> None:
        """Tell it of a process group."""
        os.write(self._writer, f"+{pid}\n".encode())

    def remove(self, pid: int) -> None:
        """Tell it that a process group has ended."""
        os.write(self._writer, f"-{pid}\n".encode())

    def dismiss(self) -> None:
        """End the watchdog: all is cleaned up, and the folder may be somebody else's already."""
        os.write(self._writer, b"done\n")
        os.close(self._writer)

    def forget(self) -> None:
        """Called in a forked child: the watchdog must not wait for it."""
        os.close(self._writer)

    @staticmethod
    def _watch(reader: int, folder: Path) -> NoReturn:
        groups: set[int] = set()
        with os.fdopen(reader) as lines:
            for line in lines:  # ends when the supervisor does
                if line == "done\n":
                    os._exit(0)
                groups.add(int(line[1:])) if line[0] == "+" else groups.discard(int(line[1:]))
        for group in groups:
            kill_group(group, signal.SIGKILL)
        remove_folder(folder)
        os._exit(0)


def kill_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process group that may have ended."""
    # macOS says "not permitted" of a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
