"""Tasks that are wrong on purpose, for lessons that show what happens then. Do not copy them.

The app does not include this module. A lesson starts a worker that does:

    sandbox.start_worker(["advanced"], options=["--include", "lab.wrong_tasks"])
"""

from celery import Task

from celery_app import app
from services.simulation import simulate_service


@app.task(bind=True, max_retries=3, queue="advanced")
def swallow_retry(self: Task, failures: int) -> str:
    """Call a simulated service that is away for the first `failures` tries, or give up with a fallback.

    Wrong: `self.retry` raises Retry, an Exception like others. The outer `except` swallows it.
    """
    try:
        try:
            return simulate_service(self.request.retries + 1, failures)
        except ConnectionError as error:
            raise self.retry(exc=error, countdown=0.2) from error
    except Exception:  # noqa: BLE001 - this line is the mistake
        return "fallback"


@app.task(autoretry_for=(Exception,), retry_kwargs={"countdown": 0.2, "max_retries": 3}, queue="advanced")
def retry_everything(amount: str) -> int:
    """Return `amount` as a number.

    Wrong: bad data is retried, though it fails the same way each time.
    """
    return int(amount)
