"""A stand-in for `docker.DockerClient`: its containers are child processes.

It knows the calls that pytest-celery makes, and no others. The sandbox's supervisor starts the servers and
the workers, and ends them if the test run is killed.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import IO, Any, NoReturn
from uuid import uuid4

from lab.processes.connection import Process
from lab.sandbox import SandboxError, join

INHERITED = ("HOME", "LANG", "LC_ALL", "TMPDIR")
POLL_SECONDS = 0.005


class NotLocal(NotImplementedError, AttributeError):
    """The local engine does not know a call. Also an AttributeError, so that `hasattr` answers no."""

    def __init__(self, call: str) -> None:
        super().__init__(f"the local engine does not know {call}: run this test with --docker")


class _Part:
    """A part of Docker's interface."""

    def __getattr__(self, name: str) -> NoReturn:
        raise NotLocal(f"{type(self).__name__}.{name}")


# --- processes ------------------------------------------------------------------------------------------


class Container(_Part):
    """A process that can be ended and started again. Its log goes on over all its lives."""

    def __init__(
        self,
        engine: "LocalEngine",
        command: list[str],
        environment: dict[str, str],
        network: str,
        mounts: dict[str, Path],
    ) -> None:
        self.id = uuid4().hex
        self.name = f"local-{self.id[:12]}"
        self.status = "created"
        self.attrs: dict[str, Any] = {
            "Config": {"Hostname": self.id[:12], "Env": [f"{key}={environment[key]}" for key in environment]},
            "HostConfig": {"PortBindings": {}},
            "NetworkSettings": {"Ports": {}, "Networks": {network: {"IPAddress": "127.0.0.1"}}},
            "Socket": str(engine.folder / f"{self.id[:12]}.sock"),
        }
        self._connection = engine.connection
        self._command = command
        self._folder = next(iter(mounts.values()), engine.folder)
        # Nothing else of the tester's environment: a container would not see it either.
        self._env = {key: os.environ[key] for key in INHERITED if key in os.environ}
        self._env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self._env |= {key: _local_path(value, mounts) for key, value in environment.items()}
        self._pid: int | None = None
        self._log: Path | None = None
        self._earlier_logs = b""
        self._start()

    def _launch(self) -> Process:
        """Start the process and return its pid and log when it is ready. Raises `SandboxError`."""
        raise NotImplementedError

    def _start(self) -> None:
        try:
            process = self._launch()
        except SandboxError as error:  # it ended before it was ready; the text holds the end of its log
            self._earlier_logs += f"{error}\n".encode()
        else:
            self._pid, self._log = process.pid, process.log
        self.reload()

    def reload(self) -> None:
        """Look whether the process is alive."""
        self.status = "exited"
        if self._pid is not None:
            try:
                os.kill(self._pid, 0)
                self.status = "running"
            except ProcessLookupError:
                self._pid = None

    def logs(self) -> bytes:
        """Return all that was written to standard output and error, of earlier lives too."""
        return self._earlier_logs + (self._log.read_bytes() if self._log else b"")

    def kill(self, number: str | int | None = None) -> None:
        """Send a signal to the main process; by default SIGKILL, to all of them, and wait for the end."""
        if self._pid is None:
            raise RuntimeError(f"{self.name} is not running")
        number = signal.Signals[number] if isinstance(number, str) else number or signal.SIGKILL
        if number == signal.SIGKILL:
            self._connection.end(self._pid, signal.SIGKILL)
        else:
            os.kill(self._pid, number)

    def restart(self, timeout: float = 10) -> None:
        """End the process, by SIGKILL if SIGTERM takes longer than `timeout` seconds, and start it again."""
        if self.status == "running":
            self.kill("SIGTERM")
            deadline = time.monotonic() + timeout
            while self.status == "running" and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
                self.reload()
        self.remove(force=True)
        self._start()

    def remove(self, force: bool = False) -> None:
        """Kill the process if it still runs, and put its log aside."""
        self.reload()
        if self.status == "running":
            self.kill()
        self._earlier_logs = self.logs()
        if self._log:
            self._log.unlink()
        self._pid = self._log = None

    def exec_run(self, command: str | list[str]) -> tuple[int, bytes]:
        """Run a command with the container's folder and environment. Return its exit code and output."""
        done = subprocess.run(
            shlex.split(command) if isinstance(command, str) else command,
            cwd=self._folder,
            env=self._env | {"CONTAINER_PID": str(self._pid)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return done.returncode, done.stdout


class Server(Container):
    """A Valkey server at a private socket. It keeps nothing on disk."""

    def _launch(self) -> Process:
        _, *arguments = self._command
        return self._connection.start_server(self.attrs["Config"]["Hostname"], arguments)


class Worker(Container):
    """A Celery worker, forked from the supervisor."""

    def _launch(self) -> Process:
        match [part.replace("%h", self.id[:12]) for part in self._command]:
            case ["celery", "-A", app, "worker", *arguments] if "-n" in arguments:
                name = arguments[arguments.index("-n") + 1]
            case _:
                raise NotLocal(f"the command {shlex.join(self._command)}")
        process = self._connection.start_worker(
            name, app, arguments, environment=self._env, folder=self._folder
        )
        # The worker says that it is ready a moment before it logs so. pytest-celery looks once a second.
        deadline = time.monotonic() + 1
        while b" ready.\n" not in process.log.read_bytes() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return process


PROGRAMS: dict[str, type[Container]] = {"redis-server": Server, "celery": Worker}


def _local_path(value: str, mounts: dict[str, Path]) -> str:
    for inside, folder in mounts.items():
        if value == inside or value.startswith(f"{inside}/"):
            return str(folder) + value.removeprefix(inside)
    return value


# --- what containers share ------------------------------------------------------------------------------


class Volume(_Part):
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.folder = folder
        folder.mkdir(parents=True)

    def remove(self, force: bool = False) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder)


class VolumeSeed(_Part):
    """A container that is never started: the first files of a volume go through it."""

    def __init__(self, mounts: dict[str, Path]) -> None:
        self._mounts = mounts

    def put_archive(self, path: str, data: IO[bytes]) -> None:
        """Unpack the tar archive `data` into the volume at `path`."""
        with tarfile.open(fileobj=data) as archive:
            archive.extractall(self._mounts[path], filter="data")

    def remove(self, force: bool = False) -> None:
        """Leave the files in the volume."""


class Network(_Part):
    """A name: local processes can reach each other anyway."""

    def __init__(self, name: str) -> None:
        self.name = name

    def remove(self) -> None:
        """Do nothing: there is nothing to remove."""


class Image(_Part):
    """A name: local processes run what is installed here."""

    def __init__(self, name: str) -> None:
        self.id = name


# --- the client -----------------------------------------------------------------------------------------


class LocalEngine(_Part):
    """The part of `docker.DockerClient` that pytest-celery uses, for processes in one private folder.

    Raises `lab.sandbox.SandboxError` if the supervisor does not start.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="learn-celery-"))
        try:
            self.connection = join(self.folder)
        except SandboxError:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self.containers = Containers(self)
        self.volumes = Volumes(self)
        self.networks = Networks()
        self.images = Images()

    def mounts(self, volumes: dict[str, dict[str, str]]) -> dict[str, Path]:
        """Return which folder stands for which path in a container."""
        return {mount["bind"]: self.folder / "volumes" / name for name, mount in volumes.items()}

    def close(self) -> None:
        """End what still runs, and remove the folder."""
        self.connection.close()


class Containers(_Part):
    """Starts processes."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    def run(
        self,
        *,
        image: str,
        network: str,
        command: list[str] | None = None,
        environment: dict[str, str] | None = None,
        volumes: dict[str, dict[str, str]] | None = None,
        ports: object = None,  # servers listen on sockets in the private folder
        labels: object = None,
        detach: bool = True,
        **unknown: object,
    ) -> Container:
        """Start the program of `command`, and return when it is ready or has ended.

        Raises `NotLocal` for another program than redis-server and celery, and for other options.
        """
        if unknown:
            raise NotLocal(f"containers.run({', '.join(unknown)})")
        if not command or command[0] not in PROGRAMS:
            raise NotLocal(f"containers.run(image={image!r}, command={command})")
        mounts = self._engine.mounts(volumes or {})
        return PROGRAMS[command[0]](self._engine, command, environment or {}, network, mounts)

    def create(self, *, image: str, volumes: dict[str, dict[str, str]]) -> VolumeSeed:
        """Return the container through which pytest-docker-tools fills a volume."""
        return VolumeSeed(self._engine.mounts(volumes))


class Volumes(_Part):
    """Makes folders."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    def create(self, name: str, labels: object = None) -> Volume:
        """Return a new empty volume."""
        return Volume(self._engine.folder / "volumes" / name)


class Networks(_Part):
    """Makes names."""

    def create(self, name: str, labels: object = None) -> Network:
        """Return a network."""
        return Network(name)


class Images(_Part):
    """Builds nothing."""

    def build(self, *, path: str, tag: str = "local", **_: object) -> tuple[Image, list[str]]:
        """Return an image without building it, and an empty build log."""
        return Image(tag), []
