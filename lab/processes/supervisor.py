"""The sandbox's parent process: it starts the broker and the workers, and it ends them.

One supervisor runs for each sandbox folder. Whoever uses the sandbox keeps a connection to the supervisor's
socket open. When the last connection closes, however its process ended, the supervisor ends everything and
removes the folder. If the supervisor itself is killed, the watchdog does that.

The supervisor has Celery imported, and forks workers: they are ready in a tenth of the usual time.
It is started by `lab.processes.connection`, never by hand: its standard input is its first connection.
"""

import contextlib
import itertools
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from lab.processes.children import SIGNALS, Children
from lab.processes.folder import CONTROL_SOCKET, Taken, remove_folder, take_folder
from lab.processes.log import open_log, why
from lab.processes.server import answers, run_server
from lab.processes.watchdog import Watchdog, kill_group
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
from lab.processes.worker import preload, run_mail_server, run_worker

GRACE_SECONDS = 15.0
SERVER_START_SECONDS = 10.0


class Program:
    """A program that uses the sandbox, at the other end of its connection."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self._unread = b""

    def hear(self) -> list[Message]:
        """Return the requests that have arrived. Raises `EOFError` if the program has left."""
        try:
            data = self.link.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [decode(line) for line in lines]

    def tell(self, answer: Message) -> None:
        """Send an answer."""
        with contextlib.suppress(OSError):  # it has left: hear() will say so
            self.link.sendall(answer.encode())


class Supervisor:
    """Serves one sandbox folder until nobody uses it."""

    def __init__(self, folder: Path, logs: Path, lock: int, watchdog: Watchdog) -> None:
        self.folder = folder
        self.logs = logs
        self.lock = lock
        self.watchdog = watchdog
        self.children = Children(logs, watchdog, self._let_go)
        self.programs: list[Program] = []
        self.owners: dict[int, Program] = {}  # for whom a worker runs, by the worker's process id
        self.guests: set[int] = set()  # workers that use a broker of the user
        self.waiting: list[tuple[int, Program]] = []  # who waits for the end of which process
        self.preloading = preload()
        self.pinned = False
        self.stopping = False
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        self._listen_for_signals()

    def open(self, with_broker: bool) -> None:
        """Start what a sandbox has. Raises `OSError` and `RuntimeError` if a part does not start."""
        (self.folder / "tmp").mkdir(exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        broker = self._spawn_server(BROKER) if with_broker else None
        self.children.start("mail server", "mail", lambda: run_mail_server(self.folder))
        self.listener.bind(str(self.folder / CONTROL_SOCKET))
        self.listener.listen(64)
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        if broker:
            self._wait_for_server(broker)
        # Until here, the program that starts us reads what is printed.
        os.dup2(open_log(self.logs / "supervisor.log"), 2)

    def serve(self) -> None:
        """Answer until told to stop, or until the last program has left."""
        while not self.stopping:
            imported = next(self.preloading, None)
            for key, _ in self.selector.select(0 if imported else None):
                key.data()

    def stop(self) -> None:
        """Leave the loop, and end everything."""
        self.stopping = True

    def clean_up(self) -> None:
        """End what is left, remove the folder."""
        self.listener.close()
        self._end_guests()
        self.children.kill_all()
        remove_folder(self.folder)
        self.watchdog.dismiss()

    # --- processes ---

    def _start_server(self, name: str, arguments: Sequence[str]) -> Process:
        server = self._spawn_server(name, arguments)
        self._wait_for_server(server)
        return server

    def _spawn_server(self, name: str, arguments: Sequence[str] = ()) -> Process:
        return self.children.start("server", name, lambda: run_server(self._socket_of(name), arguments))

    def _socket_of(self, server: str) -> Path:
        return self.folder / f"{server}.sock"

    def _wait_for_server(self, server: Process) -> None:
        deadline = time.monotonic() + SERVER_START_SECONDS
        while not answers(self._socket_of(server.name)):
            self._reap()
            if server.pid not in self.children.alive or time.monotonic() > deadline:
                kill_group(server.pid, signal.SIGKILL)
                raise RuntimeError(f"The server {server.name} did not start. {why(server.log, self.folder)}")
            if next(self.preloading, None) is None:
                time.sleep(0.002)

    def _start_worker(self, order: StartWorker, program: Program) -> None:
        """Fork a Celery worker. The program gets the answer when the worker is ready, or has failed."""
        for _ in self.preloading:
            pass  # a worker that is forked before would import all that itself
        name = self._free_name(order.name)
        reader, tell = os.pipe()
        ready = os.fdopen(reader, "rb")
        try:
            worker = self.children.start(
                "worker", name, lambda: run_worker(order, name, self.folder / "tmp", tell), order.pinned
            )
        finally:
            os.close(tell)
        if not order.pinned:
            self.owners[worker.pid] = program
        broker = order.environment.get("CELERY_BROKER_URL")
        if broker and str(self.folder) not in broker:
            self.guests.add(worker.pid)
        self.selector.register(ready, selectors.EVENT_READ, partial(self._report, worker, ready, program))

    def _report(self, worker: Process, ready: BinaryIO, program: Program) -> None:
        self.selector.unregister(ready)
        with ready:
            is_ready = ready.read(1)  # empty: it has ended before
        if is_ready:
            program.tell(worker)
        else:
            reason = why(worker.log, self.folder)
            program.tell(Failed(f"The worker {worker.name} did not start. {reason}"))

    def _free_name(self, wanted: str) -> str:
        """Return `wanted`, or `wanted-2` and so on: two workers with one name would answer for each other."""
        taken = {process.name for process in self.children.of("worker")}
        names = itertools.chain([wanted], (f"{wanted}-{number}" for number in itertools.count(2)))
        return next(name for name in names if name not in taken)

    def _end(self, request: End, program: Program) -> Ended | None:
        if request.pid not in self.children.alive:
            return Ended()
        self.waiting.append((request.pid, program))
        number = signal.Signals(request.number)
        if number == signal.SIGKILL:
            kill_group(request.pid, number)
        else:  # only the main process: the pool children are its own to end
            os.kill(request.pid, number)
        return None

    def _end_guests(self) -> None:
        """End workers whose broker is not ours, and stays: they give back what they have taken."""
        for pid in self.guests:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self.guests and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.05)

    def _reap(self) -> None:
        """Look after every child process that has ended."""
        for ended in self.children.reap():
            if ended == self.watchdog.pid:
                self.stop()  # nobody would clean up after us: better stop in good order
            self.owners.pop(ended, None)
            self.guests.discard(ended)
            for program in [program for pid, program in self.waiting if pid == ended]:
                program.tell(Ended())
            self.waiting = [entry for entry in self.waiting if entry[0] != ended]

    def _let_go(self) -> None:
        """In a forked child: close what belongs to the supervisor alone, and take signals as usual."""
        signal.set_wakeup_fd(-1)
        for number in (*SIGNALS, signal.SIGQUIT):  # a shell lets background jobs ignore the last one
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr] # no bare descriptors are registered
        for other in (self.selector, self.listener, self._wakeup):
            other.close()
        os.close(self.lock)

    # --- signals ---

    def _listen_for_signals(self) -> None:
        self._woken, self._wakeup = socket.socketpair()
        for end in (self._woken, self._wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno())
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        self.selector.register(self._woken, selectors.EVENT_READ, self._on_signal)

    def _on_signal(self) -> None:
        numbers = self._woken.recv(64)
        self._reap()
        if set(numbers) - {signal.SIGCHLD}:
            self.stop()

    # --- programs ---

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        self.welcome(Program(connection))

    def welcome(self, program: Program) -> None:
        """Serve one more program, until it leaves."""
        self.programs.append(program)
        self.selector.register(program.link, selectors.EVENT_READ, partial(self._hear, program))

    def _hear(self, program: Program) -> None:
        try:
            for request in program.hear():
                if answer := self._answer(request, program):
                    program.tell(answer)
        except EOFError:
            self._leave(program)
        except (OSError, RuntimeError, ValueError) as error:
            program.tell(Failed(str(error)))

    def _answer(self, request: Message, program: Program) -> Message | None:
        """Do what is asked, and return the answer, or None if it is given later."""
        match request:
            case GetStatus():
                return self.status()
            case Pin():
                self.pinned = True
                return self.status()
            case StartServer(name, arguments):
                return self.children.named("server", name) or self._start_server(name, arguments)
            case StartWorker():
                self._start_worker(request, program)
            case End():
                return self._end(request, program)
            case Stop():
                self.stop()
            case _:
                raise ValueError(f"{request!r} is not a request")
        return None

    def status(self) -> Status:
        """Return what runs here."""
        return Status(
            supervisor=os.getpid(),
            folder=self.folder,
            logs=self.logs,
            pinned=self.pinned,
            programs=len(self.programs),
            broker=self.children.named("server", BROKER),
            workers=tuple(self.children.of("worker")),
        )

    def _leave(self, program: Program) -> None:
        self.programs.remove(program)
        self.selector.unregister(program.link)
        if not self.programs and not self.pinned:
            self.last_program = program  # it waits for the end: its connection stays open until then
            self.stop()
            return
        program.link.close()
        for pid in [pid for pid, owner in self.owners.items() if owner is program]:
            os.kill(pid, signal.SIGTERM)  # others still use the broker: finish the running tasks


def main() -> None:
    """Serve the folder named on the command line."""
    folder, logs, with_broker = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "broker"
    if os.fork():
        os._exit(0)  # the program that started us need not wait for our end
    first = Program(socket.socket(fileno=os.dup(0)))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        lock = take_folder(folder)
        watchdog = Watchdog(folder, first.link)
    except Taken:
        first.tell(Busy())
        return
    except OSError as error:
        first.tell(Failed(str(error)))
        return
    supervisor = Supervisor(folder, logs, lock, watchdog)
    supervisor.welcome(first)
    try:
        supervisor.open(with_broker)
    except (OSError, RuntimeError) as error:
        supervisor.clean_up()
        first.tell(Failed(str(error)))
        return
    try:
        supervisor.serve()
    finally:
        supervisor.clean_up()
