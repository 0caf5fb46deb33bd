"""A task with a result, and one without."""

from celery_app import app


# TODO 1: store no result.
@app.task
def ping(shop: str) -> str:
    """Say that a shop is there. Nobody reads the result."""
    return f"{shop} is there"


# TODO 2: this result is needed.
@app.task(ignore_result=True)
def count(articles: list[str]) -> int:
    """Return how many articles there are."""
    return len(articles)
