"""A real broker and real workers, as child processes, for as long as a `with` block lasts.

    with Sandbox(queues=["basic"], concurrency=2) as sandbox:
        print(add.delay(4, 5).get(timeout=10))
        sandbox.worker.kill()       # SIGKILL, as if the machine had lost power
        sandbox.broker.restart()

All terminals of one checkout share one sandbox: the same broker, at a private Unix socket. It ends with
the last program that uses it.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from settings import BROKER_DATABASE, RESULT_DATABASE, ROOT, settings, socket_url, without_password

LONGEST_SOCKET_PATH = 100  # bytes; Linux allows 107, macOS 103
START_SECONDS = 20.0


class SandboxError(RuntimeError):
    """The sandbox, or a part of it, could not start. The text says why and what to do."""


class Connection:
    """A connection to the supervisor of a sandbox folder. While it is open, the sandbox stays."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self._lines = link.makefile("r")

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        """Send one request and return the answer. Raises `SandboxError` if the answer is an error."""
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
        connection.ask("status")
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
        is_busy = _start_keeper(folder, logs or folder / "logs", with_server)
        if is_busy:
            time.sleep(0.02)  # another program is starting or ending it at this moment
    raise SandboxError(f"The sandbox in {folder} did not start within {START_SECONDS:.0f} seconds.")


def _start_keeper(folder: Path, logs: Path, with_server: bool) -> bool:
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


class _Process:
    """A process of the sandbox that may be stopped, killed or frozen."""

    def __init__(self, connection: Connection, details: dict[str, Any]) -> None:
        self._connection = connection
        self.name: str = details["name"]
        self.pid: int = details["pid"]
        self.log: Path = Path(details["log"])

    def stop(self) -> None:
        """Ask it to end (SIGTERM), and wait until it has: a worker finishes its running tasks."""
        self._connection.ask("end", pid=self.pid, signal=signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL), with its children, as if the machine had lost power."""
        self._connection.ask("end", pid=self.pid, signal=signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it where it is (SIGSTOP). It keeps its connections and answers nothing."""
        self.require_running()
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        self.require_running()
        os.killpg(self.pid, signal.SIGCONT)

    def require_running(self) -> None:
        """Raise `SandboxError` if it has ended: its number may belong to somebody else's process now."""
        status = self._connection.ask("status")
        if self.pid not in [process["pid"] for process in (status["broker"], *status["workers"]) if process]:
            raise SandboxError(
                f"{self.name} (process {self.pid}) is not running in this sandbox: left alone."
            )


class Worker(_Process):
    """A Celery worker of the sandbox."""


class Broker(_Process):
    """The server of the sandbox: broker in database 0, result backend in database 1."""

    def __init__(self, connection: Connection, folder: Path, details: dict[str, Any]) -> None:
        super().__init__(connection, details)
        self._folder = folder
        self.socket = folder / "broker.sock"

    @property
    def url(self) -> str:
        """The broker URL for Celery."""
        return socket_url(self._folder, BROKER_DATABASE)

    @property
    def result_backend(self) -> str:
        """The result backend URL for Celery."""
        return socket_url(self._folder, RESULT_DATABASE)

    def client(self, database: int = BROKER_DATABASE) -> redis.Redis:
        """Return a Redis client for one database of the server."""
        return redis.Redis(unix_socket_path=str(self.socket), db=database)

    def start(self) -> None:
        """Start it again, empty: it keeps nothing on disk."""
        details = self._connection.ask("start_server")["broker"]
        self.pid = details["pid"]

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()


class Sandbox:
    """The shared sandbox of this checkout, with a worker of its own for the time of a `with` block.

    `queues`: what the worker serves; an empty list starts no worker.
    `concurrency`: how many tasks the worker runs at a time.
    `pool`: prefork, threads or solo. `profile`: reliable, fast or drill (see celery_app.py).
    `folder`: another sandbox, apart from the shared one.

    Where CELERY_BROKER_URL names a server, that server is used and no broker is started.
    Raises `SandboxError` if the broker or the worker does not start.
    """

    def __init__(
        self,
        queues: Sequence[str] = (),
        concurrency: int = 2,
        *,
        pool: str = "prefork",
        profile: str = settings.celery_profile,
        folder: Path | None = None,
    ) -> None:
        self._queues = queues
        self._concurrency = concurrency
        self._pool = pool
        self._profile = profile
        self._shared = folder is None
        self.folder = folder or settings.sandbox_folder
        self.workers: list[Worker] = []
        self._broker: Broker | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Join the sandbox, or start it, and start the worker."""
        self._has_broker = settings.uses_sandbox or not self._shared
        if not self._has_broker:
            self.folder = Path(tempfile.mkdtemp(prefix="learn-celery-"))
        logs = settings.state_dir / "logs" if self._shared else None
        try:
            self.connection = join(self.folder, logs, with_server=self._has_broker)
        except SandboxError:
            if not self._has_broker:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        try:
            status = self.connection.ask("status")
            self.is_new = status["connections"] == 1 and not status["workers"] and not status["pinned"]
            if self._has_broker:
                self._broker = Broker(
                    self.connection,
                    self.folder,
                    status["broker"] or self.connection.ask("start_server")["broker"],
                )
            if self._queues:
                self.start_worker(self._queues)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the worker. If nobody else uses the sandbox, the broker ends too."""
        module = sys.modules.get("celery_app")
        if module and module.app.conf.result_backend == socket_url(self.folder, RESULT_DATABASE):
            # Results that this program still holds would complain at its exit that the broker is gone.
            module.app.backend.result_consumer.subscribed_to.clear()
        self.connection.close()

    @property
    def broker(self) -> Broker:
        """The sandbox's own server. Raises `SandboxError` if a server of the user is used instead."""
        if self._broker is None:
            raise SandboxError(
                f"The broker {without_password(settings.broker_url)} is not the sandbox's: left alone. "
                "Unset CELERY_BROKER_URL and CELERY_RESULT_BACKEND to use the sandbox's own."
            )
        return self._broker

    @property
    def worker(self) -> Worker:
        """The worker that was started last."""
        return self.workers[-1]

    def start_worker(
        self,
        queues: Sequence[str],
        name: str | None = None,
        *,
        options: Sequence[str] = (),
        profile: str | None = None,
        pinned: bool = False,
    ) -> Worker:
        """Start a worker for `queues` and return it when it is ready.

        `options`: more options of `celery worker`, such as `["--include", "lab.wrong_tasks"]`.
        `profile`: reliable, fast or drill, where it is not the sandbox's.
        `pinned`: it stays when this program ends.
        Raises `SandboxError` with the end of the worker's log.
        """
        environment = os.environ | {
            "CELERY_PROFILE": profile or self._profile,
            "SANDBOX_DIR": str(self.folder),
        }
        if self._has_broker:
            environment |= {"CELERY_BROKER_URL": "", "CELERY_RESULT_BACKEND": ""}
        arguments = [
            *("--queues", ",".join(queues), "--loglevel", "INFO"),
            *("--concurrency", str(self._concurrency), "--pool", self._pool, "--without-mingle"),
            *options,
        ]
        answer = self.connection.ask(
            "start_worker",
            name="-".join(["sandbox", *([name] if name else queues)]),
            app="celery_app",
            arguments=arguments,
            env=environment,
            cwd=str(ROOT),
            pinned=pinned,
        )
        self.workers.append(Worker(self.connection, answer["worker"]))
        return self.worker
