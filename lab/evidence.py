"""What happened, as data. Notebooks, tests and checks read it here, each kind of trace in one way.

    waiting, unacknowledged                             from the broker's keys
    log_lines, received, retry_waits, process_names     from a worker's log
    started, most_at_once                               from events: the runs of a `Timeline`
    states                                              from the result backend
    is_running                                          from the sandbox

Each tells what is there at this moment. Only `log_lines` waits; for the others there is `wait_for`:

    wait_for("all is acknowledged", lambda: not unacknowledged())
"""

import re
from collections.abc import Iterable

from celery.result import AsyncResult

from broker import broker_channel, check_queue, queue_lengths, unacknowledged_total, waiting_by_priority
from celery_app import QUEUES
from lab.runs import Run
from lab.sandbox import SandboxError, Worker
from lab.waiting import wait_for

# --- The broker -----------------------------------------------------------------------------------------


def waiting(*queues: str) -> int:
    """Return how many messages wait on these queues, with all priorities; without a name, on all queues.

    Raises `ValueError` for a queue that the app does not have.
    """
    for queue in queues:
        check_queue(queue)
    with broker_channel() as channel:
        return sum(sum(waiting_by_priority(channel, queue).values()) for queue in queues or QUEUES)


def unacknowledged(*queues: str) -> int:
    """Return how many messages of these queues workers have taken and not acknowledged; without a name, all.

    Raises `ValueError` for a queue that the app does not have.
    """
    for queue in queues:
        check_queue(queue)
    with broker_channel() as channel:
        if not queues:
            return unacknowledged_total(channel)
        lengths = queue_lengths(channel)
        return sum(lengths[queue]["unacknowledged"] for queue in queues)


# --- A worker's log -------------------------------------------------------------------------------------


def log_lines(worker: Worker, task_id: str, until: str = "succeeded", times: int = 1) -> list[str]:
    """Return the lines of the worker's log about one task, once `until` is in `times` of them.

    A result can arrive a moment before its line in the log.
    Raises `TimeoutError` if they do not come.
    """

    def look() -> list[str]:
        lines = [line for line in worker.log.read_text().splitlines() if f"[{task_id}]" in line]
        return lines if sum(until in line for line in lines) >= times else []

    return wait_for(f"{times} x {until!r} for task {task_id} in {worker.log}", look)


def received(worker: Worker, task_id: str) -> int:
    """Return how often the worker has received a task. Each retry and each redelivery counts."""
    return sum(what == "received" for _, what, _ in _told(worker, task_id))


def retry_waits(worker: Worker, task_id: str) -> list[float]:
    """Return how long a task was told to wait before each of its retries, in seconds."""
    announced = (re.match(r"Retry in ([\d.]+)s", rest) for _, what, rest in _told(worker, task_id))
    return [float(found[1]) for found in announced if found]


def process_names(worker: Worker, task_id: str) -> list[str]:
    """Return which process ended each run of a task: `ForkPoolWorker-2`, say, or `MainProcess`."""
    return [process for process, what, _ in _told(worker, task_id) if what != "received"]


def _told(worker: Worker, task_id: str) -> list[tuple[str, str, str]]:
    """Return what a log tells of each step of a task: the process, `received`, `retry` …, and the rest."""
    step = re.compile(rf"/([\w-]+)\] Task .+\[{re.escape(task_id)}\] (\w+):? ?(.*)")
    return step.findall(worker.log.read_text())


# --- Events, results, processes -------------------------------------------------------------------------


def started(runs: Iterable[Run]) -> int:
    """Return how many of these runs have begun."""
    return sum(run.started is not None for run in runs)


def most_at_once(runs: Iterable[Run]) -> int:
    """Return how many of these runs went on at the same time, at most. Those without an end do not count."""
    spans = [(run.started, run.ended) for run in runs if run.started is not None and run.ended is not None]
    return max((sum(begin <= moment < end for begin, end in spans) for moment, _ in spans), default=0)


def states(results: Iterable[AsyncResult]) -> list[str]:
    """Return the state of each result, as the result backend has it now."""
    return [result.state for result in results]


def is_running(worker: Worker) -> bool:
    """Return whether the worker is still there."""
    try:
        worker.require_running()
    except SandboxError:
        return False
    return True
