"""the unique_id must be the same when the task runs again"""

from uuid import uuid4

from celery_app import app
from services.mail import send_email


@app.task
def send_bill(order: int, to: str) -> bool:
    """Send the bill of an order. Return whether it was sent now, and not before."""
    return not send_email(f"bill-{uuid4()}", to, f"Bill {order}", "Please pay.")["already_sent"]
