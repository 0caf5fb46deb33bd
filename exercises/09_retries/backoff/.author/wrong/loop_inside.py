"""a loop inside the task keeps the pool child busy"""

from celery import Task

from celery_app import app
from lab.workshop.services import Unavailable, charge


@app.task(bind=True)
def pay(self: Task, order: int) -> str:
    """Charge an order, and return its receipt."""
    for _ in range(5):
        try:
            return charge(order, 250)
        except Unavailable:
            pass
