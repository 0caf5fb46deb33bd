"""the service would allow 4 in a second"""

from celery_app import app
from lab.workshop.services import note

WORKERS = 2


@app.task(rate_limit="60/m")
def call_service(number: int) -> int:
    """Call the service: simulated."""
    note("call", number=number)
    return number
