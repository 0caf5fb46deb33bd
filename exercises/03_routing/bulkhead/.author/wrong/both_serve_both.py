"""the worker that serves realworld was busy with reports"""

from typing import Any

from celery_app import app
from lab.workshop.services import simulate_work

# The queues of each worker. Each worker runs one task at a time.
WORKERS = {
    "one": ["advanced", "realworld"],
    "two": ["advanced", "realworld"],
}


@app.task
def make_report(number: int) -> int:
    """Make a slow report: simulated."""
    simulate_work(0.3)
    return number


@app.task
def pay(order: int) -> int:
    """Take a payment: simulated."""
    return order


def send_report(number: int) -> Any:
    """Send a report to its queue."""
    return make_report.apply_async((number,), queue="advanced")


def send_payment(order: int) -> Any:
    """Send a payment to its queue."""
    return pay.apply_async((order,), queue="realworld")
