"""reserve has failed, and nobody was told"""

from typing import Any

from celery.canvas import Signature

from celery_app import app
from lab.workshop.services import note


@app.task
def reserve(order: int) -> int:
    """Reserve the articles of an order. Raises `ValueError` for an order that does not exist."""
    if order > 500:
        raise ValueError(f"order {order} does not exist")
    return order


@app.task
def ship(order: int) -> str:
    """Ship an order: simulated."""
    note("ship", order=order)
    return f"shipped {order}"


@app.task
def alarm(request: Any, exc: Exception, traceback: Any) -> None:
    """Tell somebody that a task has failed."""
    note("alarm", text=str(exc))


def order_chain(order: int) -> Signature:
    """Return the chain of an order."""
    return reserve.s(order) | ship.s().on_error(alarm.s())
