"""each message has a task id of its own"""

from celery_app import app
from services.mail import send_email


@app.task(bind=True)
def send_bill(self, order, to):
    """Send the bill of an order. Return whether it was sent now, and not before."""
    return not send_email(self.request.id, to, f"Bill {order}", "Please pay.")["already_sent"]
