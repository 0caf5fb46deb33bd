"""a mistake in our own program is hidden"""

from celery import Task

from celery_app import app
from lab.workshop.services import Refused, Unavailable, convert


@app.task(bind=True, max_retries=3)
def price_in(self: Task, pence: int, currency: str) -> int | None:
    """Return a price in another currency, or None for a currency that nobody knows."""
    try:
        return convert(pence, currency)
    except Unavailable as error:
        raise self.retry(exc=error, countdown=0.05) from error
    except Exception:
        return None
