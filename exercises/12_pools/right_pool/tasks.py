"""A pool for waiting, and a pool for calculating."""

from celery.exceptions import SoftTimeLimitExceeded

from celery_app import app
from lab.workshop.services import simulate_work

# celery worker --pool … --concurrency …
# TODO 1: many at once.
WAITING = ("solo", 12)
# TODO 2: limits must work.
LIMITED = ("threads", 1)


@app.task
def call(number: int) -> int:
    """Wait for another machine: simulated."""
    simulate_work(0.3)
    return number


@app.task(soft_time_limit=1)
def calculate() -> str:
    """Calculate for a long time: simulated. Stopped after one second."""
    try:
        simulate_work(2)
    except SoftTimeLimitExceeded:
        return "stopped"
    return "ran to its end"
