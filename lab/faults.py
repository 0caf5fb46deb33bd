"""Break things on purpose: what the methods of the sandbox's worker and broker do not do yet.

    sandbox.worker.kill()               sandbox.broker.stop(), .start(), .restart()
    sandbox.worker.freeze(), .thaw()    sandbox.broker.freeze(), .thaw()
    kill_child(sandbox.worker)          fill(sandbox.broker), make_room(sandbox.broker)
                                        flush(sandbox.broker), slow_network(sandbox.broker, 0.1)

All of them touch only processes that this sandbox has started. They refuse anything else.
"""

import asyncio
import os
import signal
import tempfile
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery.utils.nodenames import gethostname, nodename

from celery_app import app
from lab.sandbox import Broker, SandboxError, Worker
from settings import BROKER_DATABASE, socket_url

ANSWER_TRIES = 5  # of one second


def kill_child(worker: Worker, task_id: str | None = None) -> int:
    """Kill a pool child of `worker` with SIGKILL, as the kernel does when memory runs out. Return its pid.

    `task_id`: the child that runs this task; without it, any child.
    Raises `SandboxError` if the worker has ended or does not answer, if no child of it runs that task, and
    for a pool without child processes.
    """
    worker.require_running()
    node = nodename(worker.name, gethostname())
    answer = _ask(node, "stats" if task_id is None else "active")
    if task_id is None:
        pids = answer["pool"].get("processes", [])
    else:
        pids = [task["worker_pid"] for task in answer if task["id"] == task_id]
        if not pids:
            raise SandboxError(f"task_id={task_id!r}: the worker {node} does not run it now")
    # The children of a sandbox worker are in its process group, and nobody else is.
    children = [pid for pid in pids if pid != worker.pid and _group_of(pid) == worker.pid]
    if not children:
        raise SandboxError(f"The worker {node} has no pool child to kill. Start it with pool='prefork'.")
    os.kill(children[0], signal.SIGKILL)
    return int(children[0])


def _ask(node: str, command: str) -> Any:
    # A worker that has just started may not hear the first question.
    for _ in range(ANSWER_TRIES):
        if answers := getattr(app.control.inspect([node], timeout=1, limit=1), command)():
            return answers[node]
    raise SandboxError(
        f"The worker {node} does not answer. Is it frozen, or does the app use another broker?"
    )


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def fill(broker: Broker) -> None:
    """Leave the broker no memory: it goes on reading, and refuses to write. Undo it with `make_room`.

    The policy is noeviction, so nothing is lost, and `.delay()` raises.
    """
    broker.client().config_set("maxmemory", 1)


def make_room(broker: Broker) -> None:
    """Undo `fill`."""
    broker.client().config_set("maxmemory", 0)  # no limit


def flush(broker: Broker) -> int:
    """Delete everything in the broker's database, results excepted. Return how many keys there were."""
    client = broker.client()
    keys = int(client.dbsize())
    client.flushdb()
    return keys


@contextmanager
def slow_network(broker: Broker, seconds: float) -> Iterator[str]:
    """Put a slow line before the broker for the time of a block. Give the broker URL at its far end.

    What is sent through it arrives `seconds` later, in both directions. Only who uses the URL is slowed:

        with slow_network(sandbox.broker, 0.1) as url, app.connection_for_write(url) as connection:
            add.apply_async((4, 5), connection=connection)
    """
    if seconds < 0:
        raise ValueError(f"seconds={seconds!r}: must be 0 or more")
    broker.require_running()
    with tempfile.TemporaryDirectory(prefix="learn-") as folder:
        line = _SlowLine(broker.socket, Path(folder) / "broker.sock", seconds)
        thread = threading.Thread(target=asyncio.run, args=(line.serve(),), name="slow network", daemon=True)
        thread.start()
        line.ready.wait()
        try:
            yield socket_url(Path(folder), BROKER_DATABASE)
        finally:
            line.stop()
            thread.join()


class _SlowLine:
    """Carries bytes between a socket of its own and that of the broker, and takes its time."""

    def __init__(self, broker: Path, own: Path, seconds: float) -> None:
        self.broker, self.own, self.seconds = broker, own, seconds
        self.ready = threading.Event()

    async def serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_unix_server(self._connect, self.own)
        self.ready.set()
        await self._ended.wait()
        server.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)

    async def _connect(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            from_broker, to_broker = await asyncio.open_unix_connection(self.broker)
            await asyncio.gather(self._carry(reader, to_broker), self._carry(from_broker, writer))
        except OSError:
            pass  # one end has hung up, or the broker is away: hang up at this end too
        finally:
            writer.close()

    async def _carry(self, source: StreamReader, target: StreamWriter) -> None:
        while data := await source.read(65536):
            await asyncio.sleep(self.seconds)
            target.write(data)
            await target.drain()
        target.close()
