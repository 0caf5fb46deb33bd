"""What a submission costs: `POST /tasks` from 50 clients at once, with the broker up and with it down.

    python benchmarks/web_api.py --requests 10000

Each client sends its next request when the last one is answered. Nothing may be lost: at the end the rows of
the database and the messages of the broker are counted. No worker runs, so that all messages are still there.
Then, for the time from a token to the page, one worker runs and a client reads the events of its tasks.
The database is a SQLite file in a temporary folder, or that of DATABASE_URL.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psutil

BODY = json.dumps({"prompt": "A short story about a queue", "max_tokens": 50}).encode()


class Client:
    """One keep-alive connection. It parses as little of HTTP as it can: the server is measured."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookie = ""

    async def open(self) -> None:
        """Connect, and get a cookie."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        head, _ = await self.ask("GET", "/tasks")
        self.cookie = head.partition("set-cookie: ")[2].partition(";")[0]

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[str, bytes]:
        """Send a request, and return head and body of the answer."""
        self.writer.write(self.head(method, path, len(body)) + body)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = int(answer.lower().partition("content-length: ")[2].partition("\r\n")[0])
        return answer, await self.reader.readexactly(length)

    def head(self, method: str, path: str, length: int = 0) -> bytes:
        """Return the head of a request."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nCookie: {self.cookie}\r\n"
        return f"{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode()

    async def submit(self, requests: Iterator[int]) -> list[float]:
        """Submit until there are no more requests. Return how many seconds each took."""
        took = []
        for _ in requests:
            begin = time.perf_counter()
            head, body = await self.ask("POST", "/tasks", BODY)
            took.append(time.perf_counter() - begin)
            assert head.startswith("HTTP/1.1 201"), head + body.decode()
        return took


async def submit_all(port: int, clients: int, requests: int) -> tuple[list[float], float]:
    """Return how many seconds each request took, and all of them."""
    crowd = [Client(port) for _ in range(clients)]
    await asyncio.gather(*(client.open() for client in crowd))
    numbers, begin = iter(range(requests)), time.perf_counter()
    took = await asyncio.gather(*(client.submit(numbers) for client in crowd))
    return [one for each in took for one in each], time.perf_counter() - begin


@contextmanager
def api(processes: int) -> Iterator[tuple[int, psutil.Process]]:
    """Run the API in processes of its own, and give its port, and their parent, or the only one."""
    from lab.processes.watchdog import end_with
    from lab.web import listen

    listener = listen(0)
    port = listener.getsockname()[1]
    listener.set_inheritable(True)
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "api.app:app",
        "--fd",
        str(listener.fileno()),
        "--no-access-log",
        *("--workers", str(processes)),
    ]
    process = subprocess.Popen(
        command,
        pass_fds=[listener.fileno()],
        env=os.environ,
        preexec_fn=partial(end_with, os.getpid()),
    )
    listener.close()

    try:
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def counted() -> tuple[int, int]:
    """Return how many rows there are, and how many of them are marked as sent."""
    from sqlalchemy import func, select

    from services.database import reading
    from services.models import TaskRecord

    with reading() as session:
        counts = select(func.count(), func.count(TaskRecord.dispatched_at)).select_from(TaskRecord)
        rows, sent = session.execute(counts).one()
    return rows, sent


def measure(clients: int, requests: int, processes: int) -> None:
    """Measure with the broker up, and with it down; then start the broker, and count."""
    from lab.sandbox import Sandbox
    from lab.waiting import wait_for
    from services.database import migrate

    migrate()
    begun, _ = counted()
    with Sandbox() as sandbox, api(processes) as (port, process):
        for number, broker in enumerate(("up", "down"), 1):
            if broker == "down":
                sandbox.broker.stop()
            before = cpu_seconds(process)
            took, seconds = asyncio.run(submit_all(port, clients, requests))
            cuts = statistics.quantiles(took, n=100)
            rows, sent = counted()
            cpu = (cpu_seconds(process) - before) / requests
            print(
                f"broker {broker:5} {requests / seconds:7,.0f} requests/s   p50 {cuts[49] * 1000:5.0f} ms   "
                f"p95 {cuts[94] * 1000:5.0f} ms   p99 {cuts[98] * 1000:5.0f} ms   "
                f"longest {max(took) * 1000:5.0f} ms   CPU {cpu * 1000:.2f} ms   "
                f"rows {rows:,}, of them sent {sent:,}"
            )
            assert rows == begun + number * requests
            if broker == "up":
                begin = time.perf_counter()
                wait_for("all are sent", lambda: counted()[1] == begun + requests, seconds=120)
                print(f"  all sent {time.perf_counter() - begin:.1f} s later: {length():,} messages")
        sandbox.broker.start()
        begin = time.perf_counter()
        wait_for("all are sent", lambda: counted()[1] == begun + 2 * requests, seconds=120)
        print(f"  all sent {time.perf_counter() - begin:.1f} s after its return: {length():,} messages")


def measure_tokens() -> None:
    """Measure from the moment when Redis took a token of the worker, which its id names, until it is here."""
    from lab.sandbox import Sandbox

    with Sandbox(queues=["ai"]), api(1) as (port, _):
        late = sorted(asyncio.run(lateness(port)))
        print(
            f"tokens: first {late[-1] * 1000:.0f} ms at the latest, "
            f"p50 {late[len(late) // 2] * 1000:.0f} ms, of {len(late)} tasks"
        )


async def lateness(port: int, tasks: int = 20) -> list[float]:
    """Submit tasks one after the other, and return how late the first token of each was, in seconds."""
    client = Client(port)
    await client.open()
    late = []
    for _ in range(tasks):
        _, body = await client.ask("POST", "/tasks", BODY)
        client.writer.write(client.head("GET", f"/tasks/{json.loads(body)['id']}/events"))
        while not (line := await client.reader.readline()).startswith(b"event: token"):
            pass
        while not (line := await client.reader.readline()).startswith(b"id: "):
            pass
        late.append(time.time() - int(line[4:].partition(b"-")[0]) / 1000)
        client.writer.close()
        cookie, client = client.cookie, Client(port)
        await client.open()
        client.cookie = cookie
    return late


def cpu_seconds(process: psutil.Process) -> float:
    """Return what a process and its children have computed."""
    every = [process, *process.children(recursive=True)]
    return sum(one.cpu_times().user + one.cpu_times().system for one in every)


def length() -> int:
    """Return how many messages wait in the queue."""
    from broker import broker_channel, queue_lengths

    with broker_channel() as channel:
        return queue_lengths(channel)["ai"]["waiting"]


def main() -> None:
    """Measure in a temporary folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--processes", type=int, default=1, help="of the API")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="learn-") as folder:
        os.environ |= {"STATE_DIR": f"{folder}/state", "DATA_DIR": folder, "SANDBOX_DIR": f"{folder}/s"}
        os.environ |= {"CELERY_BROKER_URL": "", "CELERY_RESULT_BACKEND": ""}
        measure_tokens()
        measure(options.clients, options.requests, options.processes)


if __name__ == "__main__":
    main()
