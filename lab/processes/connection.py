"""How a program talks to the supervisor of a sandbox folder, and starts it where none runs."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from lab.processes.folder import CONTROL_SOCKET, remove_what_is_left
from lab.processes.wire import (
    BROKER,
    Busy,
    End,
    Ended,
    Failed,
    GetStatus,
    Message,
    Pin,
    Process,
    StartServer,
    StartWorker,
    Status,
    Stop,
    decode,
)

__all__ = ["BROKER", "Connection", "Process", "SandboxError", "Status", "connect", "join"]

ROOT = Path(__file__).resolve().parents[2]
LONGEST_SOCKET_PATH = 100  # bytes; Linux allows 107, macOS 103
START_SECONDS = 20.0
ENDED = Failed("The sandbox has ended. Start it again with ./learn up.")

Answer = TypeVar("Answer", bound=Message)


class SandboxError(RuntimeError):
    """The sandbox, or a part of it, could not start. The text says why and what to do."""


class Connection:
    """A connection to the supervisor of a sandbox folder. While it is open, the sandbox stays."""

    def __init__(self, folder: Path, link: socket.socket) -> None:
        self.folder = folder
        self.link = link
        self._lines = link.makefile("rb")

    def status(self) -> Status:
        """Return what runs in the sandbox."""
        return self._ask(GetStatus(), Status)

    def pin(self) -> Status:
        """Let the sandbox stay when the last connection closes. Return what runs in it."""
        return self._ask(Pin(), Status)

    def start_worker(
        self,
        name: str,
        app: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        path: Sequence[str] | None = None,
        pinned: bool = False,
    ) -> Process:
        """Start `celery -A app worker arguments…`, and return it when it is ready.

        `name` gets a number if it is taken. `folder` is where it runs. `path`: folders to import from,
        instead of this project. `pinned`: it stays when this connection closes.
        Raises `SandboxError` with the end of its log if it does not start.
        """
        own_path = None if path is None else list(path)
        order = StartWorker(name, app, list(arguments), dict(environment), str(folder), pinned, own_path)
        return self._ask(order, Process)

    def start_server(self, name: str = BROKER, arguments: Sequence[str] = ()) -> Process:
        """Start a server at the socket `name`.sock, if it does not run, and return it.

        Without arguments: the broker of the sandbox. `arguments` are options of the server.
        Raises `SandboxError` with the end of its log if it does not start.
        """
        return self._ask(StartServer(name, list(arguments)), Process)

    def end(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process of the sandbox, and wait until it has ended."""
        self._ask(End(pid, number), Ended)

    def _ask(self, request: Message, expected: type[Answer]) -> Answer:
        answer = self.exchange(request)
        if isinstance(answer, Failed):
            raise SandboxError(answer.reason)
        assert isinstance(answer, expected)
        return answer

    def exchange(self, request: Message) -> Message:
        """Send a request, and return the answer. It is `ENDED` if the sandbox has ended."""
        with contextlib.suppress(ConnectionError):  # it may have ended, and have said why before
            self.link.sendall(request.encode())
        try:
            line = self._lines.readline()
        except ConnectionError:
            line = b""
        try:
            return decode(line) if line else ENDED
        except ValueError:
            return Failed(
                f"A sandbox that another version of this project has started runs in {self.folder}. "
                f"End it: pkill -f {self.folder}"
            )

    def disown(self) -> None:
        """In a forked child: close its copy of this connection, which stays the parent's."""
        self._lines.close()
        self.link.close()

    def close(self) -> None:
        """Leave the sandbox. If nobody else uses it, it ends, and this waits until it has."""
        with contextlib.suppress(OSError):  # it had ended before
            self.link.shutdown(socket.SHUT_WR)
            self._wait_for_the_end()
        self.let_go()

    def stop(self) -> None:
        """End the sandbox, whoever uses it, and wait until it has ended."""
        with contextlib.suppress(OSError):
            self.link.sendall(Stop().encode())
            self._wait_for_the_end()
        self.let_go()

    def _wait_for_the_end(self) -> None:
        while self.link.recv(4096):
            pass

    def let_go(self) -> None:
        """Close the connection, and do not wait. Removes what is left of a sandbox that was killed."""
        self.disown()
        remove_what_is_left(self.folder)


def connect(folder: Path) -> Connection | None:
    """Return a connection to the sandbox in `folder`, or None if none runs there.

    Raises `SandboxError` if one runs there that cannot be talked to.
    """
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(str(folder / CONTROL_SOCKET))
    except (FileNotFoundError, ConnectionRefusedError):
        link.close()
        return None
    connection = Connection(folder, link)
    answer = connection.exchange(GetStatus())
    if isinstance(answer, Status):
        return connection
    connection.let_go()
    if answer is ENDED:  # at this moment
        return None
    raise SandboxError(str(answer))


def join(folder: Path, logs: Path | None = None, with_broker: bool = True) -> Connection:
    """Return a connection to the sandbox in `folder`; start it first if it does not run.

    Raises `SandboxError` if it cannot start.
    """
    if len(os.fsencode(folder / CONTROL_SOCKET)) > LONGEST_SOCKET_PATH:
        raise SandboxError(
            f"SANDBOX_DIR={str(folder)!r} is too long: the path of a socket may have {LONGEST_SOCKET_PATH} "
            "characters. Set SANDBOX_DIR to a shorter path."
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        begun = _begun.pop(folder, None)
        if not begun and (connection := connect(folder)):
            return connection
        if connection := _started(*begun or _spawn(folder, logs or folder / "logs", with_broker)):
            return connection
        time.sleep(0.02)  # another program is starting or ending it at this moment
    raise SandboxError(f"The sandbox in {folder} did not start within {START_SECONDS:.0f} seconds.")


def begin(folder: Path, logs: Path | None = None, with_broker: bool = True) -> None:
    """Start the sandbox in `folder`, if it does not run, and do not wait for it: `join` will.

    It takes half a second of its own, in which this program can import Celery.
    """
    if not (folder / CONTROL_SOCKET).exists():
        _begun[folder] = _spawn(folder, logs or folder / "logs", with_broker)


_begun: dict[Path, tuple[Connection, subprocess.Popen[bytes]]] = {}


def _spawn(folder: Path, logs: Path, with_broker: bool) -> tuple[Connection, subprocess.Popen[bytes]]:
    """Start a supervisor. It has a connection from its first moment: if this program is killed, it ends."""
    ours, its = socket.socketpair()
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "lab.processes", str(folder), str(logs), "broker" if with_broker else "-"],
        cwd=ROOT,
        stdin=its.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in the terminal is for its user, not for the supervisor
    )
    its.close()
    return Connection(folder, ours), supervisor


def _started(connection: Connection, supervisor: subprocess.Popen[bytes]) -> Connection | None:
    """Return the connection when the sandbox has started, or None if another supervisor has the folder."""
    try:
        answer = connection.exchange(GetStatus())
        if isinstance(answer, Status):
            return connection
        connection.close()
        if isinstance(answer, Busy):
            return None
        reason = _reason(answer, supervisor)
        raise SandboxError(f"The sandbox could not start in {connection.folder}. {reason}")
    finally:
        assert supervisor.stderr
        supervisor.stderr.close()
        supervisor.wait()  # it has forked, and lives on by itself


def _reason(answer: Message, supervisor: subprocess.Popen[bytes]) -> str:
    if answer is not ENDED and isinstance(answer, Failed):
        return answer.reason
    assert supervisor.stderr
    return supervisor.stderr.read().decode(errors="replace").strip() or "Its supervisor was killed."
