"""450 means not now"""

from celery_app import app
from services.mail import TemporaryMailError, send_email


@app.task
def send_bill(order: int, to: str) -> str:
    """Send the bill of an order, and return its Message-ID."""
    return send_email(f"bill-{order}", to, f"Bill {order}", "Please pay.")["message_id"]
