"""all shops are in the report, once, and nobody is alarmed"""

from typing import Any

from celery import chord
from celery.canvas import Signature

from celery_app import app
from lab.workshop.services import note


@app.task
def count_stock(shop: str) -> int:
    """Count the stock of a shop. Raises `ConnectionError` for the shop that is closed."""
    if shop == "closed":
        raise ConnectionError(f"the shop {shop} does not answer")
    return 11 * len(shop)


@app.task
def report(counts: list[int]) -> str:
    """Make the report of all shops."""
    note("report", counts=counts)
    return f"{sum(counts)} pieces"


@app.task
def alarm(request: Any, exc: Exception, traceback: Any) -> None:
    """Tell somebody that the report failed."""
    note("alarm", text=str(exc))


def report_chord(shops: list[str]) -> Signature:
    """Return a canvas that makes the report of these shops."""
    header = [count_stock.s(shop) for shop in shops]
    return chord([*header, alarm.s(None, None, None)], report.s().on_error(alarm.s()))
