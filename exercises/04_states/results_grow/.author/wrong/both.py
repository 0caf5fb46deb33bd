"""this result is needed: store it"""

from celery_app import app


@app.task(ignore_result=True)
def ping(shop: str) -> str:
    """Say that a shop is there. Nobody reads the result."""
    return f"{shop} is there"


@app.task(ignore_result=True)
def count(articles: list[str]) -> int:
    """Return how many articles there are."""
    return len(articles)
