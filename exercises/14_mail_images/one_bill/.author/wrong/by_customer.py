"""the same customer has several orders"""

from celery_app import app
from services.mail import send_email


@app.task
def send_bill(order: int, to: str) -> bool:
    """Send the bill of an order. Return whether it was sent now, and not before."""
    return not send_email(
        f"bill-{to}-{order % 100_000 if order < 200_000 else 0}", to, f"Bill {order}", "Please pay."
    )["already_sent"]
