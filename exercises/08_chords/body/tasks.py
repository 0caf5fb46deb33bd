"""A count in all shops, as a chord."""

from celery import chord
from celery.canvas import Signature

from celery_app import app


@app.task
def count_stock(shop: str) -> int:
    """Count the stock of a shop: simulated, 11 for each letter of its name."""
    return 11 * len(shop)


@app.task
def total(counts: list[int]) -> int:
    """Return the sum of the counts."""
    return sum(counts)


def stock_chord(shops: list[str]) -> Signature:
    """Return a canvas whose result is the stock of all shops."""
    # TODO 1: count in each shop.
    # TODO 2: add the counts.
    return count_stock.s(shops[0])
