"""A task that survives the end of its worker."""

from celery_app import app
from lab.workshop.services import note, simulate_work


@app.task(acks_late=True)
def pack(order: int) -> str:
    """Pack an order. Raises `ValueError` for an order that does not exist."""
    note("began", order=order)
    simulate_work(0.4)
    if order < 0:
        raise ValueError(f"order {order} does not exist")
    return f"packed {order}"
