"""A payment that is tried again."""

from celery import Task

from celery_app import app
from lab.workshop.services import Unavailable, charge


@app.task(bind=True)
def pay(self: Task, order: int) -> str:
    """Charge an order, and return its receipt."""
    # TODO 1: try again while the service is away.
    # TODO 2: wait twice as long before each retry.
    return charge(order, 250)
