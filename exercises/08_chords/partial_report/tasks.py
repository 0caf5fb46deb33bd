"""A report that says what is missing."""

from typing import Any

from celery import chord
from celery.canvas import Signature

from celery_app import app
from lab.workshop.services import Unavailable, stock_of


@app.task
def count_stock(shop: str) -> dict[str, Any]:
    """Count the stock of a shop. The count is None if the shop does not answer."""
    # TODO 1: the shop may be away.
    # TODO 3: catch that error, and no other.
    try:
        return {"shop": shop, "count": stock_of(shop) if shop else None, "away": False}
    except ZeroDivisionError:
        return {}


@app.task
def report(counts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sum of the counts, and which shops are missing."""
    # TODO 2: say what is missing.
    return {"sum": sum(count["count"] for count in counts)}


def report_chord(shops: list[str]) -> Signature:
    """Return a canvas that makes the report of these shops."""
    return chord([count_stock.s(shop) for shop in shops], report.s())
