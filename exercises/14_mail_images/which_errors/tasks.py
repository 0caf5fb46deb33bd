"""Bills by mail."""

from celery_app import app
from services.mail import PermanentMailError, TemporaryMailError, send_email


# TODO 1: which error is worth a retry?
# TODO 2: and which is not?
@app.task(autoretry_for=(PermanentMailError,), max_retries=3, default_retry_delay=0.05)
def send_bill(order: int, to: str) -> str:
    """Send the bill of an order, and return its Message-ID."""
    return send_email(f"bill-{order}", to, f"Bill {order}", "Please pay.")["message_id"]
