"""Look at tasks, workers and queues: from a program, or as a live view in the terminal.

    python monitor.py

On Redis a queue is several lists, one for each priority, and a message that a worker holds is in none of
them: it lies in the hash `unacked`. `LLEN` of one list shows a part of the backlog.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

from kombu.exceptions import OperationalError
from rich.console import Group
from rich.table import Table

from celery_app import QUEUES, app, broker_trouble, require_broker
from lab import console


class TaskState(TypedDict):
    """What the result backend knows of one task."""

    id: str
    state: str
    name: str | None
    result: Any
    traceback: str | None
    note: str


class QueueLength(TypedDict):
    """How many messages a queue has."""

    waiting: int
    unacknowledged: int
    by_priority: dict[int, int]


class WorkerStats(TypedDict):
    """What one worker does."""

    pool: str
    concurrency: int
    queues: list[str]
    active: int
    reserved: int
    scheduled: int
    done: int


def monitor_task(task_id: str) -> TaskState:
    """Return what is known of a task.

    PENDING means that nothing is known: it waits, it is lost, it is forgotten, or it was never sent.
    """
    result = app.AsyncResult(task_id)
    state = result.state
    note = "Nothing is known of this id: it waits, is lost, has expired, or was never sent."
    return {
        "id": task_id,
        "state": state,
        "name": result.name,
        "result": repr(result.result) if result.failed() else result.result,
        "traceback": str(result.traceback) if result.traceback else None,
        "note": note if state == "PENDING" else "",
    }


def get_queue_length(queue: str) -> QueueLength:
    """Return the length of `queue`: all its priority lists, and what workers hold unacknowledged.

    Raises `ValueError` for a queue that the app does not have.
    """
    check_queue(queue)
    with broker_channel() as channel:
        lengths = waiting_by_priority(channel, queue)
        # Each entry is the message, its exchange and its routing key, which is the queue's name here.
        held = [json.loads(entry)[2] for _, entry in channel.client.hscan_iter(channel.unacked_key)]
    return {
        "waiting": sum(lengths.values()),
        "unacknowledged": held.count(queue),
        "by_priority": lengths,
    }


def waiting_by_priority(channel: Any, queue: str) -> dict[int, int]:
    """Return the length of each priority list of `queue` that is not empty, the one served first first."""
    lengths = {
        priority: channel.client.llen(list_key(channel, queue, priority))
        for priority in channel.priority_steps
    }
    return {priority: length for priority, length in lengths.items() if length}


def list_key(channel: Any, queue: str, priority: int) -> str:
    """Return the key of the Redis list that holds the messages of `queue` with this priority."""
    return f"{queue}{channel.sep}{priority}" if priority else queue


def purge_queue(queue: str) -> int:
    """Delete all waiting messages of `queue` and return how many there were.

    Messages that workers hold stay: running tasks, and those with a countdown or an ETA.
    Raises `ValueError` for a queue that the app does not have.
    """
    check_queue(queue)
    with broker_channel() as channel:
        return int(channel.queue_purge(queue))


def get_worker_stats(timeout: float = 1.0) -> dict[str, WorkerStats]:
    """Return what each worker does. Workers that do not answer within `timeout` seconds are left out."""
    stats = app.control.inspect(timeout=timeout).stats() or {}
    if not stats:
        return {}
    # Now the number of answers is known: stop waiting when all are there.
    inspect = app.control.inspect(list(stats), timeout=timeout, limit=len(stats))
    queues, active = inspect.active_queues() or {}, inspect.active() or {}
    reserved, scheduled = inspect.reserved() or {}, inspect.scheduled() or {}
    return {
        worker: {
            "pool": details["pool"]["implementation"].partition(":")[0].rpartition(".")[2],
            "concurrency": details["pool"].get("max-concurrency", 1),
            "queues": [queue["name"] for queue in queues.get(worker, [])],
            "active": len(active.get(worker, [])),
            "reserved": len(reserved.get(worker, [])),
            "scheduled": len(scheduled.get(worker, [])),
            "done": sum(details["total"].values()),
        }
        for worker, details in sorted(stats.items())
    }


@contextmanager
def broker_channel() -> Iterator[Any]:
    """Give a channel to the broker. Raises `OperationalError` at once if the broker does not answer."""
    with app.connection_for_write() as connection:
        transport = connection.transport
        try:
            yield transport.create_channel(transport.establish_connection())
        except connection.connection_errors as error:
            raise OperationalError(broker_trouble(error)) from error


def check_queue(queue: str) -> None:
    """Raise `ValueError` for a queue that the app does not have."""
    if queue not in QUEUES:
        raise ValueError(f"queue={queue!r}: no such queue; use one of {', '.join(QUEUES)}")


def view() -> Group:
    """Return the live view: one table of queues, one of workers."""
    queues = Table("queue", "waiting", "unacknowledged", title="Queues", title_justify="left")
    for queue in QUEUES:
        length = get_queue_length(queue)
        queues.add_row(queue, str(length["waiting"]), str(length["unacknowledged"]))
    columns = ("worker", "pool", "slots", "queues", "active", "reserved", "scheduled", "done")
    workers = Table(*columns, title="Workers", title_justify="left")
    for name, stats in get_worker_stats().items():
        numbers = (stats["active"], stats["reserved"], stats["scheduled"], stats["done"])
        slots, served = str(stats["concurrency"]), ",".join(stats["queues"])
        workers.add_row(name, stats["pool"], slots, served, *map(str, numbers))
    return Group(queues, workers)


def main() -> None:
    """Show the view until Ctrl-C; once, if the output is not a terminal."""
    require_broker()
    try:
        console.watch(view)
    except OperationalError as error:
        raise SystemExit(broker_trouble(error)) from None


if __name__ == "__main__":
    main()
