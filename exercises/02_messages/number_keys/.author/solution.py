"""Orders by article number."""

from typing import Any

from celery_app import app


@app.task
def total(prices: list[tuple[int, int]], articles: list[int]) -> int:
    """Return the sum of the prices of `articles`. `prices`: pairs of article and price in pence."""
    by_article = dict(prices)
    return sum(by_article[article] for article in articles)


def send_order(prices: dict[int, int], articles: list[int]) -> Any:
    """Send an order, and return the result of its task. `prices`: price in pence by article."""
    return total.delay(list(prices.items()), articles)
