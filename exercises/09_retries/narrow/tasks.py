"""A payment that declares its retries."""

from celery_app import app
from lab.workshop.services import Unavailable, charge


@app.task(
    # TODO 1 and 2: which errors may pass?
    autoretry_for=(ValueError,),
    max_retries=3,
    # TODO 3: backoff, its maximum, jitter.
    default_retry_delay=0.05,
)
def pay(order: int, pence: int) -> str:
    """Charge an order, and return its receipt."""
    return charge(order, pence)
