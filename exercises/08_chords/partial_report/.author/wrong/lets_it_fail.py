"""the task failed, and the report with it"""

from typing import Any

from celery import chord
from celery.canvas import Signature

from celery_app import app
from lab.workshop.services import Unavailable, stock_of


@app.task
def count_stock(shop: str) -> dict[str, Any]:
    """Count the stock of a shop. The count is None if the shop does not answer."""
    return {"shop": shop, "count": stock_of(shop)}


@app.task
def report(counts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sum of the counts, and which shops are missing."""
    return {
        "sum": sum(count["count"] or 0 for count in counts),
        "missing": [count["shop"] for count in counts if count["count"] is None],
    }


def report_chord(shops: list[str]) -> Signature:
    """Return a canvas that makes the report of these shops."""
    return chord([count_stock.s(shop) for shop in shops], report.s())
