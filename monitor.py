"""Look at tasks, workers and queues: from a program, or as a live view in the terminal.

    ./learn monitor

On Redis a queue is several lists, one for each priority, and an unacknowledged message is in none of them:
it lies in the hash `unacked`. `LLEN` of one list shows a part of the backlog.
"""

import time
from collections.abc import Callable
from typing import Any, TypedDict

from celery.result import AsyncResult
from kombu.exceptions import OperationalError
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from broker import QueueLength, broker_channel, check_queue, queue_lengths
from celery_app import app, broker_trouble, require_broker

NO_WORKER = "No worker runs, or none answers. Start one in another terminal: ./start_worker.sh"


class TaskState(TypedDict):
    """What the result backend knows of one task."""

    id: str
    state: str
    name: str | None
    result: Any
    traceback: str | None
    note: str


class WorkerStats(TypedDict):
    """What one worker does."""

    pool: str
    concurrency: int
    queues: list[str]
    active: int
    reserved: int
    scheduled: int
    done: int


def monitor_task(task: str | AsyncResult) -> TaskState:
    """Return what is known of a task. `task` is its id, or its result.

    PENDING means that nothing is known: it waits, it is lost, it is forgotten, or it was never sent.
    Raises `TypeError` for anything else, such as the result of a group, which is many tasks.
    """
    task_id = task.id if isinstance(task, AsyncResult) else task
    if not isinstance(task_id, str):
        raise TypeError(f"task={task!r}: give the id of one task, or its AsyncResult")
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
    """Return the length of `queue`: all its priority lists, and what is unacknowledged.

    Raises `ValueError` for a queue that the app does not have.
    """
    check_queue(queue)
    with broker_channel() as channel:
        return queue_lengths(channel)[queue]


def purge_queue(queue: str) -> int:
    """Delete all waiting messages of `queue` and return how many there were.

    Unacknowledged messages stay: those of running tasks, and those with a countdown or an ETA.
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


def view() -> Group:
    """Return the live view: one table of queues, one of workers."""
    queues = Table("queue", "waiting", "unacknowledged", title="Queues", title_justify="left")
    with broker_channel() as channel:
        lengths = queue_lengths(channel)
    for queue, length in lengths.items():
        queues.add_row(queue, str(length["waiting"]), str(length["unacknowledged"]))
    found = get_worker_stats()
    return Group(queues, _workers(found) if found else NO_WORKER)


def _workers(found: dict[str, WorkerStats]) -> Table:
    """Return the table of workers. It fits 80 columns, and the queues of a worker are never cut."""
    table = Table(title="Workers", title_justify="left")
    table.add_column("worker", overflow="fold")
    table.add_column("queues", overflow="fold", min_width=len("realworld,"))
    for number in ("active", "reserved", "scheduled", "done"):
        table.add_column(number, no_wrap=True, justify="right")
    for name, stats in found.items():
        worker = f"{name}\n{stats['pool']}, concurrency {stats['concurrency']}"
        numbers = (stats["active"], stats["reserved"], stats["scheduled"], stats["done"])
        table.add_row(worker, ", ".join(stats["queues"]), *map(str, numbers))
    return table


def watch(view: Callable[[], RenderableType], seconds: float = 1.0) -> None:
    """Show what `view` returns, again every `seconds` until Ctrl-C; once, if the output is not a terminal."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out.print(view())
        return
    try:
        with Live(_with_its_end(view()), console=out, auto_refresh=False) as live:
            while True:
                time.sleep(seconds)
                live.update(_with_its_end(view()), refresh=True)
    except KeyboardInterrupt:
        pass


def _with_its_end(view: RenderableType) -> Group:
    return Group(view, "Ctrl-C ends this view.")


def main() -> None:
    """Show the view until Ctrl-C; once, if the output is not a terminal."""
    require_broker()
    try:
        watch(view)
    except OperationalError as error:
        raise SystemExit(broker_trouble(error)) from None


if __name__ == "__main__":
    main()
