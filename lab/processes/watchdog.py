"""Who cleans up after a supervisor that was killed: a second small process, and on Linux the kernel."""

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from lab.processes.folder import remove_folder

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Watchdog:
    """A process that outlives a killed supervisor just long enough to clean up after it.

    It holds the folder's lock too, so that nobody takes the folder before it is cleaned up.
    `link` is the only other thing that the supervisor has opened until now.
    """

    def __init__(self, folder: Path, link: socket.socket) -> None:
        reader, self._writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._writer)
            link.close()
            self._watch(reader, folder)
        os.close(reader)

    def add(self, pid: int) -> None:
        """Tell it of a process group."""
        os.write(self._writer, f"+{pid}\n".encode())

    def remove(self, pid: int) -> None:
        """Tell it that a process group has ended."""
        # A watchdog that was killed hears nothing more. The supervisor ends, too, as soon as it notices.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._writer, f"-{pid}\n".encode())

    def dismiss(self) -> None:
        """End it: all is cleaned up, and the folder may be somebody else's already."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._writer, b"done\n")
        self.forget()

    def forget(self) -> None:
        """Let go of it: in a forked child, for which it must not wait."""
        os.close(self._writer)

    @staticmethod
    def _watch(reader: int, folder: Path) -> NoReturn:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
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


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends: supervisor and watchdog may be killed both.

    Only Linux can do that. Elsewhere this does nothing.
    """
    if sys.platform != "linux":
        return
    import ctypes  # late: the supervisor itself starts without it

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before
        os._exit(1)
