"""A payment that declares its retries."""

from celery_app import app
from lab.workshop.services import Unavailable, charge


@app.task(
    autoretry_for=(Unavailable,),
    max_retries=3,
    default_retry_delay=0.05,
    retry_backoff=0.05,
    retry_backoff_max=60,
    retry_jitter=True,
)
def pay(order: int, pence: int) -> str:
    """Charge an order, and return its receipt."""
    return charge(order, pence)
