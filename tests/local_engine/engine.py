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
from tests.local_engine.image import Image, built, fetched
from tests.local_engine.part import NotLocal, Part

INHERITED = ("HOME", "LANG", "LC_ALL", "TMPDIR")
SITE = str(Path(__file__).parent / "site")
POLL_SECONDS = 0.005


# --- processes ------------------------------------------------------------------------------------------


class Details(dict[str, Any]):
    """What Docker tells of a container, as far as it is known here."""

    def __missing__(self, key: str) -> NoReturn:
        raise NotLocal(f"Container.attrs[{key!r}]")


class Unreachable(dict[str, Any]):
    """The networks and ports of a container, which has none: its server listens on a socket.

    A test that took a port of this machine for one of its own would speak to somebody else's server.
    """

    def keys(self) -> NoReturn:
        """Raise `NotLocal`."""
        raise NotLocal("the ports and addresses of a container (a server has a socket, see SocketServer)")

    def __contains__(self, name: object) -> NoReturn:
        self.keys()


class Container(Part):
    """A process that can be ended and started again. Its log goes on over all its lives."""

    def __init__(
        self,
        engine: "LocalEngine",
        image: Image,
        command: list[str],
        environment: dict[str, str],
        network: str,
        mounts: dict[str, Path],
    ) -> None:
        self.id = uuid4().hex
        self.name = f"local-{self.id[:12]}"
        self.status = "created"
        self.attrs = Details(
            Config={"Hostname": self.id[:12], "Env": [f"{key}={environment[key]}" for key in environment]},
            HostConfig={"PortBindings": {}},
            NetworkSettings={
                "Ports": Unreachable(),
                "Networks": Unreachable({network: {"IPAddress": "127.0.0.1"}}),
            },
            Socket=str(engine.folder / f"{self.id[:12]}.sock"),
        )
        self._connection = engine.connection
        self._command = command
        self._folder = mounts.get(image.folder, engine.folder)
        # Nothing else of the tester's environment: a container would not see it either.
        self._env = {key: os.environ[key] for key in INHERITED if key in os.environ}
        self._env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self._env |= {key: _local_paths(str(value), mounts) for key, value in environment.items()}
        self._path = [entry for entry in self._env.get("PYTHONPATH", "").split(os.pathsep) if entry]
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
        """Run Python with the container's folder and environment. Return its exit code and output.

        Raises `NotLocal` for another program: it would look at this machine. `redis-cli` would speak to the
        server at port 6379, whosever that is.
        """
        words = shlex.split(command) if isinstance(command, str) else command
        if words[0] != "python":
            raise NotLocal(f"exec_run({command!r})")
        done = subprocess.run(
            words,
            cwd=self._folder,
            env=self._env
            | {"CONTAINER_PID": str(self._pid), "PYTHONPATH": os.pathsep.join([*self._path, SITE])},
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
            name, app, arguments, environment=self._env, folder=self._folder, path=self._path
        )
        # The worker says that it is ready a moment before it logs so. pytest-celery looks once a second.
        deadline = time.monotonic() + 1
        while b" ready.\n" not in process.log.read_bytes() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return process


PROGRAMS: dict[str, type[Container]] = {"redis-server": Server, "celery": Worker}


def _local_paths(value: str, mounts: dict[str, Path]) -> str:
    return os.pathsep.join(_local_path(part, mounts) for part in value.split(os.pathsep))


def _local_path(value: str, mounts: dict[str, Path]) -> str:
    for inside, folder in mounts.items():
        if value == inside or value.startswith(f"{inside}/"):
            return str(folder) + value.removeprefix(inside)
    return value


# --- what containers share ------------------------------------------------------------------------------


class Volume(Part):
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.folder = folder
        folder.mkdir(parents=True)

    def remove(self, force: bool = False) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder)


class VolumeSeed(Part):
    """A container that is never started: the first files of a volume go through it."""

    def __init__(self, mounts: dict[str, Path]) -> None:
        self._mounts = mounts

    def put_archive(self, path: str, data: IO[bytes]) -> None:
        """Unpack the tar archive `data` into the volume at `path`."""
        with tarfile.open(fileobj=data) as archive:
            archive.extractall(self._mounts[path], filter="data")

    def remove(self, force: bool = False) -> None:
        """Leave the files in the volume."""


class Network(Part):
    """A name: local processes can reach each other anyway."""

    def __init__(self, name: str) -> None:
        self.name = name

    def remove(self) -> None:
        """Do nothing: there is nothing to remove."""


# --- the client -----------------------------------------------------------------------------------------


class LocalEngine(Part):
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
        # Of two paths joined, an absolute second one counts: a folder of this machine, not a volume.
        return {mount["bind"]: self.folder / "volumes" / name for name, mount in volumes.items()}

    def close(self) -> None:
        """End what still runs, and remove the folder."""
        self.connection.close()


class Containers(Part):
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
        """Start the program of `command`, or the image's own, and return when it is ready or has ended.

        Raises `NotLocal` for another program than redis-server and celery, and for other options.
        """
        if unknown:
            raise NotLocal(f"containers.run({', '.join(unknown)})")
        known = self._engine.images.get(image)
        environment = known.environment | (environment or {})
        command = command or known.command_in(environment)
        if not command or command[0] not in PROGRAMS:
            raise NotLocal(f"containers.run(image={image!r}, command={command})")
        mounts = self._engine.mounts(volumes or {})
        return PROGRAMS[command[0]](self._engine, known, command, environment, network, mounts)

    def create(self, *, image: str, volumes: dict[str, dict[str, str]]) -> VolumeSeed:
        """Return the container through which pytest-docker-tools fills a volume."""
        return VolumeSeed(self._engine.mounts(volumes))


class Volumes(Part):
    """Makes folders."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    def create(self, name: str, labels: object = None) -> Volume:
        """Return a new empty volume."""
        return Volume(self._engine.folder / "volumes" / name)


class Networks(Part):
    """Makes names."""

    def create(self, name: str, labels: object = None) -> Network:
        """Return a network."""
        return Network(name)


class Images(Part):
    """Builds nothing and fetches nothing."""

    def __init__(self) -> None:
        self._images: dict[str, Image] = {}

    def build(
        self,
        *,
        path: str,
        dockerfile: str = "Dockerfile",
        tag: str = "local",
        buildargs: dict[str, str] | None = None,
        rm: bool = True,  # what Docker leaves behind while it builds
    ) -> tuple[Image, list[str]]:
        """Return the image that a Dockerfile describes, and an empty build log."""
        self._images[tag] = built(tag, Path(path, dockerfile), buildargs or {})
        return self._images[tag], []

    def pull(self, repository: str) -> Image:
        """Return the image of a registry."""
        return self.get(repository)

    def get(self, name: str) -> Image:
        """Return the image that was built under this name, or else the one of a registry."""
        return self._images.get(name) or fetched(name)
