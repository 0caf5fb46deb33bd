"""Real flows: steps that feed each other, work in parallel, retries, priorities, limits.

Queue: advanced. The canvases built from these tasks are in examples/advanced_usage.py.
"""

import time
from collections.abc import Iterable
from typing import Any

from celery import Task
from celery.app.task import Context
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import AsyncResult

from celery_app import app
from services import stations
from services.arguments import checked
from services.failures import record_failure
from services.invoices import charge_once
from services.simulation import simulate_service, simulate_work
from services.stations import Comparison, StationData, StationSummary

# --- Steps for chains, groups and chords ---------------------------------------------------------------


@app.task
@checked
def fetch_data(source: str) -> StationData:
    """Read the daily temperatures of the station `source`.

    Raises `ValueError` for an unknown station.
    """
    return stations.fetch(source)


@app.task
@checked
def process_item(item: StationData) -> StationSummary:
    """Return the mean and the extremes of one station's readings."""
    return stations.describe(item)


@app.task
@checked
def save_result(result: StationSummary) -> str:
    """Write one station's summary to a file and return the file's path.

    The file has the name of the station, and a name from a message may be any path: "/tmp/x", "../x".
    Raises `ValueError` for an unknown station, so that no other name gets into the path.
    """
    return str(stations.save(result))


@app.task
@checked
def summarize(results: list[StationSummary]) -> Comparison:
    """Compare the summaries of several stations: the body of a chord."""
    return stations.compare(results)


@app.task
@checked
def mean_temperature(source: str) -> float:
    """Return the mean temperature of one station in degrees Celsius: small work for chunks and starmap."""
    return stations.describe(stations.fetch(source))["mean"]


@app.task
def report_failure(request: Context, exc: Exception, traceback: object) -> None:
    """Record a failure in the journal: an error callback.

    With these three arguments Celery calls it at once, in the worker where the failure is noticed. With
    one argument, the id, Celery would send it as a task, which may run before the failure is stored.
    """
    record_failure(str(request.id), str(exc))


# --- Retries -------------------------------------------------------------------------------------------


@app.task(bind=True, max_retries=5)
@checked
def retry_with_backoff(self: Task, failures: int, base_seconds: float = 1.0) -> str:
    """Call a simulated service that is away for the first `failures` tries.

    Waits `base_seconds`, then twice, four times … as long, at most 60 seconds. Gives up after 5 retries.
    """
    try:
        return simulate_service(self.request.retries + 1, failures)
    except ConnectionError as error:
        countdown = min(60, base_seconds * 2**self.request.retries)
        raise self.retry(exc=error, countdown=countdown) from error


@app.task(bind=True, max_retries=3)
@checked
def retry_fixed_delay(self: Task, failures: int, delay_seconds: float = 1.0) -> str:
    """Call a simulated service, and wait `delay_seconds` before each of at most 3 retries."""
    try:
        return simulate_service(self.request.retries + 1, failures)
    except ConnectionError as error:
        raise self.retry(exc=error, countdown=delay_seconds) from error


@app.task(
    bind=True,
    autoretry_for=(ConnectionError,),  # not Exception: a TypeError fails the same way each time
    retry_backoff=1,  # wait 1, 2, 4 … seconds
    retry_backoff_max=60,
    retry_jitter=True,  # a random part of that, so that many failed tasks do not return together
    max_retries=5,
)
@checked
def autoretry_task(self: Task, failures: int) -> str:
    """Do the same as `retry_with_backoff`, by declaration."""
    return simulate_service(self.request.retries + 1, failures)


@app.task(bind=True, max_retries=5)
@checked
def robust_task(self: Task, failures: int, error: str = "connection") -> str:
    """Call a simulated service whose failures differ in kind, and treat each kind as it deserves.

    `error` is the kind of failure: connection errors may pass, so they are retried 5 times. Data errors
    stay, so they are not retried. For unknown ones one retry shows whether they pass.
    """
    kinds = {"connection": ConnectionError, "data": ValueError, "unknown": RuntimeError}
    if error not in kinds:
        raise ValueError(f"error={error!r}: use one of {', '.join(kinds)}")
    try:
        return simulate_service(self.request.retries + 1, failures, kinds[error])
    except ConnectionError as problem:
        raise self.retry(exc=problem, countdown=min(60, 2**self.request.retries)) from problem
    except RuntimeError as problem:
        raise self.retry(exc=problem, countdown=1, max_retries=1) from problem


# --- Safe to run twice ---------------------------------------------------------------------------------


@app.task
@checked
def idempotent_task(unique_id: str) -> str:
    """Charge the invoice `unique_id` once, however often this task runs.

    Raises `ValueError` for an unknown invoice.
    """
    return "charged" if charge_once(unique_id) else "charged before"


# --- Order, rate, time ---------------------------------------------------------------------------------


@app.task(bind=True)
@checked
def prioritized_task(self: Task, label: str) -> dict[str, Any]:
    """Return `label`, the message's priority and the time of the start (seconds since 1970).

    On Redis, priority 0 is served first and 9 last.
    """
    delivery = self.request.delivery_info or {}
    return {
        "label": label,
        "priority": delivery["priority"] or 0,
        "started": time.time(),
    }


@app.task(rate_limit="5/s")
@checked
def rate_limited_task(number: int) -> float:
    """Return the time of the start. Each worker starts at most 5 per second; two workers start 10."""
    return time.time()


@app.task(soft_time_limit=1, time_limit=5)
@checked
def time_limited_task(seconds: float) -> str:
    """Simulate work of `seconds`. After 1 second it is told to stop, and tidies up in its own way.

    Limits work on the prefork pool. The threads pool ignores them.
    """
    try:
        simulate_work(seconds)
    except SoftTimeLimitExceeded:
        return f"stopped after 1 s of {seconds:g} s"
    return f"finished in {seconds:g} s"


@app.task
@checked
def monitored_task(items: list[int]) -> dict[str, Any]:
    """Square each item, and return the squares with the duration in seconds and the count.

    Measurements belong into the return value. A task that sets its own state to SUCCESS to publish them
    hides every later error.
    """
    started = time.perf_counter()
    squares = [item * item for item in items]
    return {"squares": squares, "items": len(items), "seconds": time.perf_counter() - started}


# --- Many at once --------------------------------------------------------------------------------------


def bulk_publish(task: Task, arguments: Iterable[tuple[Any, ...]]) -> list[AsyncResult]:
    """Send `task` once for each tuple of arguments, many messages in one network round trip.

    If an error is raised on the way, what was not sent yet is not sent at all.
    """
    with app.producer_or_acquire() as producer, producer.batch():
        return [task.apply_async(args, producer=producer) for args in arguments]
