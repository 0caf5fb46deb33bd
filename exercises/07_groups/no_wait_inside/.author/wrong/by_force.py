"""the task that waits occupies the only child"""

from celery import chord
from celery.canvas import Signature

from celery_app import app


@app.task
def price_of(article: str) -> int:
    """Return the price in pence: simulated, 100 for each letter."""
    return 100 * len(article)


@app.task
def total(articles):
    """Return the sum of the prices."""
    from celery import group
    from celery.result import allow_join_result

    with allow_join_result():
        return sum(group(price_of.s(article) for article in articles).delay().get(timeout=20))


def order_total(articles: list[str]) -> Signature:
    """Return a canvas whose result is the sum of the prices of the articles."""
    return total.s(articles)
