"""A real broker and real workers, as child processes, for as long as a `with` block lasts.

    with Sandbox(queues=["basic"], concurrency=2) as sandbox:
        print(add.delay(4, 5).get(timeout=10))
        sandbox.worker.kill()       # SIGKILL: it can tidy up nothing
        sandbox.broker.restart()

All terminals of one checkout share one sandbox: the same broker, at a private Unix socket. It ends with
the last program that uses it.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab.processes.connection import Connection, Process, SandboxError, connect, join
from lab.processes.folder import remove_what_is_left
from settings import BROKER_DATABASE, RESULT_DATABASE, ROOT, settings, socket_url, without_password

__all__ = ["Broker", "Sandbox", "SandboxError", "Worker", "connect", "join", "remove_what_is_left"]


class _Process:
    """A process of the sandbox that may be stopped, killed or frozen."""

    def __init__(self, connection: Connection, process: Process) -> None:
        self._connection = connection
        self.name = process.name
        self.pid = process.pid
        self.log = process.log

    def stop(self) -> None:
        """Ask it to end (SIGTERM), and wait until it has: a worker finishes its running tasks."""
        self._connection.end(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL), with its children: it can tidy up nothing."""
        self._connection.end(self.pid, signal.SIGKILL)

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
        status = self._connection.status()
        if self.pid not in [process.pid for process in (status.broker, *status.workers) if process]:
            raise SandboxError(
                f"{self.name} (process {self.pid}) is not running in this sandbox: left alone."
            )


class Worker(_Process):
    """A Celery worker of the sandbox."""


class Broker(_Process):
    """The server of the sandbox: broker in database 0, result backend in database 1."""

    def __init__(self, connection: Connection, folder: Path, process: Process) -> None:
        super().__init__(connection, process)
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

    def require_ready(self) -> None:
        """Raise `SandboxError` if it does not answer within a second, or has no memory to take a message."""
        once = Retry(NoBackoff(), 0)
        client = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=1, retry=once)
        try:
            client.set("learn-ready", "", px=1)  # gone after a millisecond
        except redis.OutOfMemoryError as error:
            raise SandboxError(
                f"The broker at {self.url} has no memory left ({error}). It takes no message, and keeps what "
                "it has. Give it memory: lab.faults.make_room(sandbox.broker)"
            ) from error
        except redis.RedisError as error:
            raise SandboxError(
                f"The broker at {self.url} does not answer ({error}). If it was frozen on purpose: "
                "sandbox.broker.thaw(). To begin anew, without what is queued: ./learn down"
            ) from error

    def start(self) -> None:
        """Start it again, empty: it keeps nothing on disk."""
        self.pid = self._connection.start_server().pid

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

    Where CELERY_BROKER_URL names a server, that server is used, and the sandbox has no broker of its own.
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
        logs = settings.state_dir / "logs" if self._shared else None
        self.connection = join(self.folder, logs, with_broker=self._has_broker)
        try:
            status = self.connection.status()
            self.is_new = status.programs == 1 and not status.workers and not status.pinned
            if self._has_broker:
                server = status.broker or self.connection.start_server()
                self._broker = Broker(self.connection, self.folder, server)
            if self._queues:
                self.start_worker(self._queues)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the worker. If nobody else uses the sandbox, the broker ends too."""
        module = sys.modules.get("celery_app")
        if module and module.app.conf.result_backend == self._result_backend:
            # Results that this program still holds would complain at its exit that they cannot unsubscribe.
            module.app.backend.result_consumer.subscribed_to.clear()
        self.connection.close()

    @property
    def _result_backend(self) -> str:
        own = socket_url(self.folder, RESULT_DATABASE)
        return own if self._has_broker else settings.result_backend

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
        include: Sequence[str] = (),
        concurrency: int | None = None,
        pool: str | None = None,
        profile: str | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        pinned: bool = False,
    ) -> Worker:
        """Start a worker for `queues` and return it when it is ready.

        `include`: more modules with tasks, such as `["lab.wrong_tasks"]`.
        `concurrency`, `pool`, `profile`: where they are not the sandbox's.
        `options`: more options of `celery worker`. `environment`: more variables for it.
        `pinned`: it stays when this program ends.
        Raises `SandboxError` with the end of the worker's log, or if the sandbox's broker takes no messages.
        """
        if self._broker:  # without it, the worker would wait for it
            self._broker.require_ready()
        variables = os.environ | {
            "CELERY_BROKER_URL": "" if self._has_broker else settings.broker_url,
            "CELERY_RESULT_BACKEND": "" if self._has_broker else settings.result_backend,
            "REDIS_URL": "",  # the two are made from it
            "CELERY_PROFILE": profile or self._profile,
            "SANDBOX_DIR": str(self.folder),
        }
        arguments = [
            *("--queues", ",".join(queues), "--loglevel", "INFO", "--without-mingle"),
            *("--concurrency", str(concurrency or self._concurrency), "--pool", pool or self._pool),
            *(["--include", ",".join(include)] if include else []),
            *options,
        ]
        process = self.connection.start_worker(
            "-".join(["sandbox", *([name] if name else queues)]),
            "celery_app",
            arguments,
            environment=variables | dict(environment or {}),
            folder=ROOT,
            pinned=pinned,
        )
        self.workers.append(Worker(self.connection, process))
        return self.worker
