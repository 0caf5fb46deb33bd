"""Bills, one for each order."""

from celery_app import app
from services.mail import send_email


@app.task
def send_bill(order: int, to: str) -> bool:
    """Send the bill of an order. Return whether it was sent now, and not before."""
    return not send_email(f"bill-{order}", to, f"Bill {order}", "Please pay.")["already_sent"]
