"""A sum of results, without a task that waits."""

from celery import chord
from celery.canvas import Signature

from celery_app import app


@app.task
def price_of(article: str) -> int:
    """Return the price in pence: simulated, 100 for each letter."""
    return 100 * len(article)


@app.task
def total(prices: list[int]) -> int:
    """Return the sum of the prices."""
    return sum(prices)


def order_total(articles: list[str]) -> Signature:
    """Return a canvas whose result is the sum of the prices of the articles."""
    return chord([price_of.s(article) for article in articles], total.s())
