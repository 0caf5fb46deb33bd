"""The process groups that a supervisor has started. Each has a log of its own."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lab.processes.log import open_log
from lab.processes.watchdog import Watchdog, end_with, kill_group
from lab.processes.wire import Process

SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # that the supervisor handles


@dataclass(frozen=True)
class Child:
    """A process group: what it is (server, worker, mail server), and its first process."""

    kind: str
    process: Process


class Children:
    """The children of the supervisor. `alive` are those that have not ended, by process id.

    `let_go` is called in each new child: it closes what belongs to the supervisor alone.
    """

    def __init__(self, logs: Path, watchdog: Watchdog, let_go: Callable[[], None]) -> None:
        self.alive: dict[int, Child] = {}
        self._logs = logs
        self._watchdog = watchdog
        self._let_go = let_go

    def start(self, kind: str, name: str, run: Callable[[], None], pinned: bool = False) -> Process:
        """Fork a child that calls `run` and ends. What it prints goes to the log `name`.log."""
        log = self._logs / f"{name}.log"
        out = open_log(log)
        supervisor = os.getpid()
        # A signal to the child waits until it no longer has the supervisor's handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._become(run, out, supervisor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(out)
        make_group(pid)
        process = Process(name, pid, log, pinned, time.time())
        self.alive[pid] = Child(kind, process)
        return process

    def _become(self, run: Callable[[], None], out: int, supervisor: int) -> NoReturn:
        def live() -> None:
            for target in (1, 2):
                os.dup2(out, target)
            make_group(0)
            self._watchdog.add(os.getpid())
            end_with(supervisor)
            self._let_go()
            self._watchdog.forget()
            run()

        code = 1
        try:
            code = exit_code(live)
        finally:  # never back into what the supervisor was doing: its cleaning up would be done here
            os._exit(code)

    def named(self, kind: str, name: str) -> Process | None:
        """Return the living process of that kind and name, or None."""
        return next((found for found in self.of(kind) if found.name == name), None)

    def of(self, kind: str) -> list[Process]:
        """Return the living processes of one kind."""
        return [child.process for child in self.alive.values() if child.kind == kind]

    def reap(self) -> Iterator[int]:
        """Give the id of each child process that has ended, and see that nothing of its group is left."""
        while pid := _ended_child():
            if self.alive.pop(pid, None):
                kill_group(pid, signal.SIGKILL)  # the pool children of a killed worker
                self._watchdog.remove(pid)
            yield pid

    def kill_all(self) -> None:
        """Kill what is alive, and wait until it has ended."""
        for pid in self.alive:
            kill_group(pid, signal.SIGKILL)
        for pid in self.alive:
            os.waitpid(pid, 0)


def make_group(pid: int) -> None:
    """Make a process the first of a group of its own. Parent and child both do it: neither waits."""
    # The child may be quicker: then it is another program already, or has ended.
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)


def exit_code(run: Callable[[], None]) -> int:
    """Call `run` as Python calls a program, and return the exit code. An error is printed, not raised."""
    try:
        run()
        sys.stdout.flush()
    except SystemExit as done:
        if done.code is None or isinstance(done.code, int):
            return done.code or 0
        print(done.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _ended_child() -> int:
    try:
        return os.waitpid(-1, os.WNOHANG)[0]
    except ChildProcessError:
        return 0
