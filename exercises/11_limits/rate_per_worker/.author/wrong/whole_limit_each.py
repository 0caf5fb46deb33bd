"""each worker has a limit of its own"""

from celery_app import app
from lab.workshop.services import note

WORKERS = 2


@app.task(rate_limit="4/s")
def call_service(number: int) -> int:
    """Call the service: simulated."""
    note("call", number=number)
    return number
