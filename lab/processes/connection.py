"""How a program talks to the supervisor of a sandbox folder, and starts it where none runs."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
LONGEST_SOCKET_PATH = 100  # bytes; Linux allows 107, macOS 103
START_SECONDS = 20.0


class SandboxError(RuntimeError):
    """The sandbox, or a part of it, could not start. The text says why and what to do."""


@dataclass(frozen=True)
class Process:
    """A process of a sandbox: its name, its process id, its log file."""

    name: str
    pid: int
    log: Path

    @classmethod
    def of(cls, details: dict[str, Any]) -> Self:
        """Return it as the supervisor describes it."""
        return cls(details["name"], details["pid"], Path(details["log"]))


@dataclass(frozen=True)
class Status:
    """What runs in a sandbox. `connections` are the programs that use it now."""

    supervisor: int
    folder: Path
    logs: Path
    pinned: bool
    connections: int
    broker: Process | None
    workers: tuple[Process, ...]

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Self:
        """Return it as the supervisor describes it."""
        return cls(
            supervisor=answer["supervisor"],
            folder=Path(answer["folder"]),
            logs=Path(answer["logs"]),
            pinned=answer["pinned"],
            connections=answer["connections"],
            broker=Process.of(answer["broker"]) if answer["broker"] else None,
            workers=tuple(map(Process.of, answer["workers"])),
        )


class Connection:
    """A connection to the supervisor of a sandbox folder. While it is open, the sandbox stays."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self._lines = link.makefile("r")

    def status(self) -> Status:
        """Return what runs in the sandbox."""
        return Status.of(self._ask("status"))

    def pin(self) -> Status:
        """Let the sandbox stay when the last connection closes. Return what runs in it."""
        return Status.of(self._ask("pin"))

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

        `name` gets a number if it is taken. `folder` is where it runs. `path`: folders to import
        from instead of this project. `pinned`: it stays when this connection closes. Raises `SandboxError` with the end of its log if it does not start.
        """
        answer = self._ask(
            "start_worker",
            name=name,
            app=app,
            arguments=list(arguments),
            env=dict(environment),
            cwd=str(folder),
            pinned=pinned,
            **({} if path is None else {"path": list(path)}),
        )
        return Process.of(answer["worker"])

    def start_server(self) -> Process:
        """Start the sandbox's broker if it does not run, and return it."""
        return Process.of(self._ask("start_server")["broker"])

    def start_another_server(self, name: str, arguments: Sequence[str]) -> Process:
        """Start one more server, at the socket `name`.sock, with more `arguments`, and return it."""
        return Process.of(self._ask("start_another_server", name=name, arguments=list(arguments))["server"])

    def end(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process of the sandbox, and wait until it has ended."""
        self._ask("end", pid=pid, signal=number)

    def _ask(self, do: str, **details: Any) -> dict[str, Any]:
        try:
            self.link.sendall(json.dumps({"do": do, **details}).encode() + b"\n")
            line = self._lines.readline()
        except ConnectionError:
            line = ""
        if not line:
            raise SandboxError("The sandbox has ended. Start it again with ./learn up.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SandboxError(answer["error"])
        return answer

    def close(self) -> None:
        """Leave the sandbox. If nobody else uses it, it ends, and this waits until it has."""
        try:
            self.link.shutdown(socket.SHUT_WR)
            self._wait_for_the_end()
        except OSError:
            pass  # it had ended before
        self._lines.close()
        self.link.close()

    def stop(self) -> None:
        """End the sandbox, whoever uses it, and wait until it has ended."""
        self.link.sendall(json.dumps({"do": "stop"}).encode() + b"\n")
        self._wait_for_the_end()

    def _wait_for_the_end(self) -> None:
        while self.link.recv(4096):
            pass


def connect(folder: Path) -> Connection | None:
    """Return a connection to the sandbox in `folder`, or None if none runs there."""
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(str(folder / "control.sock"))
        connection = Connection(link)
        connection.status()
    except (FileNotFoundError, ConnectionRefusedError, SandboxError):
        link.close()  # it is gone, or just ending
        return None
    return connection


def join(folder: Path, logs: Path | None = None, with_server: bool = True) -> Connection:
    """Return a connection to the sandbox in `folder`; start it first if it does not run.

    Raises `SandboxError` if it cannot start.
    """
    if len(os.fsencode(folder / "control.sock")) > LONGEST_SOCKET_PATH:
        raise SandboxError(
            f"SANDBOX_DIR={str(folder)!r} is too long: the path of a socket may have {LONGEST_SOCKET_PATH} "
            "characters. Set SANDBOX_DIR to a shorter path."
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if connection := connect(folder):
            return connection
        is_busy = _start_supervisor(folder, logs or folder / "logs", with_server)
        if is_busy:
            time.sleep(0.02)  # another program is starting or ending it at this moment
    raise SandboxError(f"The sandbox in {folder} did not start within {START_SECONDS:.0f} seconds.")


def _start_supervisor(folder: Path, logs: Path, with_server: bool) -> bool:
    command = [
        sys.executable,
        "-m",
        "lab.processes.supervisor",
        str(folder),
        str(logs),
        "server" if with_server else "-",
    ]
    with tempfile.TemporaryFile() as errors:
        supervisor = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C in the terminal is for its user, not for the supervisor
            text=True,
        )
        assert supervisor.stdout
        with supervisor.stdout:
            line = supervisor.stdout.readline()
        supervisor.wait()  # it has forked, and lives on by itself
        errors.seek(0)
        said = json.loads(line or "{}") or {"error": errors.read().decode(errors="replace").strip()}
    if "error" in said:
        raise SandboxError(f"The sandbox could not start in {folder}. {said['error']}")
    return "busy" in said
