"""0.1, 0.2, 0.4 are right"""

from celery import Task

from celery_app import app
from lab.workshop.services import Unavailable, charge


@app.task(bind=True, max_retries=4)
def pay(self: Task, order: int) -> str:
    """Charge an order, and return its receipt."""
    try:
        return charge(order, 250)
    except Unavailable as error:
        raise self.retry(exc=error, countdown=0.1 * (self.request.retries + 1)) from error
