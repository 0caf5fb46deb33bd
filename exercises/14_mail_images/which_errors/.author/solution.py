"""Bills by mail."""

from celery_app import app
from services.mail import TemporaryMailError, send_email


@app.task(autoretry_for=(TemporaryMailError,), max_retries=3, retry_backoff=False, default_retry_delay=0.05)
def send_bill(order: int, to: str) -> str:
    """Send the bill of an order, and return its Message-ID."""
    return send_email(f"bill-{order}", to, f"Bill {order}", "Please pay.")["message_id"]
