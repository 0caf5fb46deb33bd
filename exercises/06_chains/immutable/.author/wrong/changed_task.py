"""the task stays as it was"""

from celery.canvas import Signature

from celery_app import app
from lab.workshop.services import note


@app.task
def pack(order: int) -> int:
    """Pack an order, and return its number."""
    note("pack", order=order)
    return order


@app.task
def tell(order: int) -> None:
    """Tell the customer that the order is packed."""
    note("tell", order=order)


@app.task
def count_stock(_=None):
    """Count the stock."""
    note("count")


def evening_chain(order: int) -> Signature:
    """Return the chain of an order."""
    return pack.s(order) | tell.s() | count_stock.s()
