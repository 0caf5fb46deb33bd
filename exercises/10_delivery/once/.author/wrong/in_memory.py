"""it was charged"""

import redis

from celery_app import app
from lab.workshop.services import charge, simulate_work
from settings import settings

paid = set()


@app.task
def pay(order: int) -> str:
    """Charge an order once, and return its receipt."""
    simulate_work(0.05)
    if order not in paid:
        paid.add(order)
        charge(order, 250)
    return f"R-{order}"
