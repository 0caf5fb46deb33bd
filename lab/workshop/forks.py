"""Forked processes that talk in lines of JSON, and the processes that they leave behind."""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.processes.children import make_group
from lab.processes.connection import begin
from lab.processes.watchdog import end_with, kill_group
from settings import settings

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class Link:
    """One end of a connection between two processes."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self._unread = b""

    def fileno(self) -> int:
        """Return the descriptor, for `select`."""
        return self.end.fileno()

    def send(self, message: Any) -> None:
        """Send a message, if the other process is still there."""
        with contextlib.suppress(OSError):
            self.end.sendall(json.dumps(message, default=repr).encode() + b"\n")

    def receive(self, seconds: float | None = None) -> Any:
        """Return the next message. Raises `TimeoutError`, and `EOFError` if the other process has ended."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while b"\n" not in self._unread:
            left = None if deadline is None else max(0, deadline - time.monotonic())
            if not select.select([self.end], [], [], left)[0]:
                raise TimeoutError
            data = b""
            with contextlib.suppress(ConnectionError):
                data = self.end.recv(65536)
            if not data:
                raise EOFError
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        return json.loads(line)


class Forked:
    """A forked process, the first of a group of its own, that ends with its parent."""

    def __init__(self, run: Callable[[Link], None]) -> None:
        ours, its = socket.socketpair()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                make_group(0)
                end_with(parent)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                ours.close()
                quiet = os.open(os.devnull, os.O_RDWR)
                for target in (0, 1, 2):
                    os.dup2(quiet, target)
                run(Link(its))
            finally:  # never back into what the parent was doing
                os._exit(0)
        make_group(self.pid)
        its.close()
        self.link = Link(ours)

    def end(self) -> None:
        """Kill it, with its group."""
        kill_group(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.link.end.close()


def begin_sandbox(lane: str = "") -> Path:
    """Begin to start the sandbox of a checker, and return its folder. `lane`: a name, if there are several.

    This program becomes the parent of what the sandbox's processes leave behind. Only Linux can do that.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    # Not the beginning of its name: the live view of JupyterLab would follow it.
    name = f"check-{os.getpid()}{lane}-{settings.sandbox_folder.name}"
    folder = settings.sandbox_folder.with_name(name)
    begin(folder)
    return folder


def kill_orphans(known: set[int]) -> None:
    """Kill what our descendants have left behind: our children that are not `known`."""
    while orphans := [pid for pid in children(os.getpid()) if pid not in known]:
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def children(parent: int) -> dict[int, str]:
    """Return the child processes of a process, each with its state as Linux writes it: Z has ended."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):
            state, of, *_ = stat.read_text(errors="replace").rpartition(")")[2].split()
            if int(of) == parent:
                found[int(stat.parent.name)] = state
    return found
