"""Prices with tax."""

from celery_app import app


@app.task
def with_tax(pence: int, percent: int) -> int:
    """Return a price with its tax, in whole pence."""
    return round(pence * (100 + percent) / 100)
