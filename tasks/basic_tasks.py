"""First steps: what a task is, what it gets, what it gives back, and how it reports on the way.

Queue: basic. A task without an explicit name is called `tasks.basic_tasks.<function>`.

A message comes from outside, and Celery does not look at the types of its arguments. `@checked` does: before
the body runs, it compares them with the annotations. So `add.delay("four", 5)` fails in the worker, and its
error names the argument, the value and what was expected.
"""

from datetime import UTC, datetime
from typing import Any

from celery import Task
from celery.utils.log import get_task_logger

from celery_app import app
from services.arguments import checked
from services.calculator import calculate
from services.simulation import simulate_work
from services.words import WordCount
from services.words import count_words as count_words_in
from tasks.base import report_progress

logger = get_task_logger(__name__)


@app.task
@checked
def add(a: int | float, b: int | float) -> int | float:
    """Return the sum of `a` and `b`."""
    return a + b


@app.task
@checked
def multiply(a: int | float, b: int | float) -> int | float:
    """Return the product of `a` and `b`."""
    return a * b


@app.task(name="simple_calculation")  # an explicit name; the queue still follows from the module
@checked
def simple_calculation(a: int | float, b: int | float, operation: str) -> float:
    """Return `a` and `b` combined by `operation`: add, subtract, multiply or divide.

    Raises `ValueError` for another operation, and `ZeroDivisionError`.
    """
    return calculate(a, b, operation)


@app.task
@checked
def greet(name: str) -> str:
    """Return a greeting for `name`."""
    return f"Hello, {name}!"


@app.task
@checked
def count_words(text: str) -> WordCount:
    """Count the words of `text`, the different ones, and the three most frequent."""
    return count_words_in(text)


@app.task(bind=True)
@checked
def task_with_progress(self: Task, total: int, seconds_per_item: float = 0.1) -> dict[str, Any]:
    """Work through `total` simulated items and report after each one.

    While it runs, its state is PROGRESS, with current, total, percent and status. Whoever has the task
    id can read them: `AsyncResult(id).info`.
    Raises `ValueError` if `total` is below 1.
    """
    if total < 1:
        raise ValueError(f"total={total}: must be 1 or more")
    for current in range(1, total + 1):
        simulate_work(seconds_per_item)
        report_progress(self, current, total, f"item {current} of {total}")
    return {"total": total, "status": "done"}


@app.task
@checked
def logged_task(message: str) -> str:
    """Write `message` to the worker's log, with this task's name and id in front, and return it."""
    logger.info("%s", message)
    return message


@app.task(bind=True)
def describe_request(self: Task) -> dict[str, Any]:
    """Return what `bind=True` gives: a task that knows its own id, name, try number and delivery."""
    request = self.request
    delivery = request.delivery_info or {}
    return {
        "id": request.id,
        "name": self.name,
        "retries": request.retries,
        "worker": request.hostname,
        "queue": delivery["routing_key"],
        "priority": delivery["priority"],
        "redelivered": bool(delivery.get("redelivered")),
    }


@app.task
def periodic_task() -> str:
    """Return the time. beat sends this task every 30 seconds."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    logger.info("periodic task at %s", now)
    return now


@app.task
def daily_task() -> str:
    """Return the day. beat sends this task at 02:00 in the time zone of the settings."""
    return datetime.now(UTC).date().isoformat()
