"""Bills, one for each order."""

from uuid import uuid4

from celery_app import app
from services.mail import send_email


@app.task
def send_bill(order: int, to: str) -> bool:
    """Send the bill of an order. Return whether it was sent now, and not before."""
    # TODO 1 and 2: what is the same each time this bill is sent?
    # TODO 3: and differs for another order?
    return not send_email(str(uuid4()), to, "Bill", "Please pay.")["already_sent"]
