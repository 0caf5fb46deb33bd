"""A sum of results, without a task that waits."""

from celery import group
from celery.canvas import Signature

from celery_app import app


@app.task
def price_of(article: str) -> int:
    """Return the price in pence: simulated, 100 for each letter."""
    return 100 * len(article)


@app.task
def total(articles: list[str]) -> int:
    """Return the sum of the prices."""
    # TODO 1: this waits inside a task.
    return sum(group(price_of.s(article) for article in articles).delay().get(timeout=5))


def order_total(articles: list[str]) -> Signature:
    """Return a canvas whose result is the sum of the prices of the articles."""
    # TODO 2: let the parts run first, and then the sum.
    return total.s(articles)
