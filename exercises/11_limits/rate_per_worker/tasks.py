"""Calls to a service that allows 4 in a second."""

from celery_app import app
from lab.workshop.services import note

WORKERS = 2


# TODO 1: this is the limit of one worker.
# TODO 2: as many as are allowed.
@app.task(rate_limit="30/m")
def call_service(number: int) -> int:
    """Call the service: simulated."""
    note("call", number=number)
    return number
