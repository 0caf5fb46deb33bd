"""Three steps of an order, as a chain."""

from celery.canvas import Signature

from celery_app import app


@app.task
def price_of(article: str) -> int:
    """Return the price in pence: simulated, 100 for each letter."""
    return 100 * len(article)


@app.task
def add_tax(pence: int, percent: int = 0) -> int:
    """Return a price with its tax."""
    return pence * (100 + percent) // 100


@app.task
def label(pence: int) -> str:
    """Return the text of a label."""
    return f"{pence} pence"


def order_chain(article: str, percent: int) -> Signature:
    """Return the chain: price of the article, plus tax, as a label."""
    # TODO 1: the label is missing.
    # TODO 2: add_tax knows no rate.
    return price_of.s(article) | add_tax.s()
