"""a dictionary is sent: its keys are text now"""

from typing import Any

from celery_app import app


@app.task
def total(prices, articles):
    """Return the sum of the prices of `articles`. `prices`: pairs of article and price in pence."""
    by_article = {int(key): value for key, value in prices.items()}
    return sum(by_article[article] for article in articles)


def send_order(prices: dict[int, int], articles: list[int]) -> Any:
    """Send an order, and return the result of its task. `prices`: price in pence by article."""
    return total.delay(prices, articles)
