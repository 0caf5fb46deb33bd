"""there is no limit"""

from celery_app import app
from lab.workshop.services import note

WORKERS = 2


@app.task
def call_service(number: int) -> int:
    """Call the service: simulated."""
    note("call", number=number)
    return number
