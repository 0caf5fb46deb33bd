"""A payment that gives up, and says so."""

from typing import Any

from celery import Task

from celery_app import AppTask, app
from lab.workshop.services import Unavailable, charge, note


class Payment(AppTask):
    """Tells of a payment that has failed for good."""

    abstract = True

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Celery calls it when the task has failed, and not when it is retried."""
        # TODO 2: say that it has given up.


@app.task(bind=True, base=Payment, max_retries=2)
def pay(self: Task, order: int) -> str:
    """Charge an order, and return its receipt."""
    try:
        return charge(order, 250)
    except Unavailable:
        # TODO 1: give the retry the error that was the cause.
        raise self.retry(countdown=0.05, exc=RuntimeError("it does not work"))
