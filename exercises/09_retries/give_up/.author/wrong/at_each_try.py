"""once, when it gives up"""

from typing import Any

from celery import Task

from celery_app import AppTask, app
from lab.workshop.services import Unavailable, charge, note


class Payment(AppTask):
    """Tells of a payment that has failed for good."""

    abstract = True

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Celery calls it when the task has failed, and not when it is retried."""
        note("gave up", order=args[0])


@app.task(bind=True, base=Payment, max_retries=2)
def pay(self: Task, order: int) -> str:
    """Charge an order, and return its receipt."""
    try:
        return charge(order, 250)
    except Unavailable as error:
        note("gave up", order=order)
        raise self.retry(exc=error, countdown=0.05) from error
