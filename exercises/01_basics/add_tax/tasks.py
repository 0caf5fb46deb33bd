"""Prices with tax."""

from celery_app import app


# TODO 1: make a task of this function.
def with_tax(pence: int, percent: int) -> int:
    """Return a price with its tax, in whole pence."""
    # TODO 2: add the tax.
    return pence
