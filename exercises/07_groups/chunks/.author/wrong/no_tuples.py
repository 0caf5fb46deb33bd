"""each call is a tuple of arguments"""

from celery.canvas import Signature

from celery_app import app


@app.task
def price_of(article: int) -> int:
    """Return the price of an article in pence: simulated."""
    return 7 * article


def look_up_all(articles: list[int]) -> Signature:
    """Return a canvas that looks up the price of each article, 20 in one message."""
    return price_of.chunks(articles, 20).group()
