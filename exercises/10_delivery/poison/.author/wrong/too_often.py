"""2 retries are enough"""

import os
import signal

from celery_app import app
from lab.workshop.services import note


@app.task(acks_late=True, retry_on_worker_lost=True, max_retries=4, default_retry_delay=0)
def pack(order: str) -> str:
    """Pack an order. "poison" kills its process each time, "unlucky" the first time."""
    note(order)
    if order == "poison" or (
        order == "unlucky" and not os.path.exists(mark := f"{os.environ['EXERCISE_FOLDER']}/m")
    ):
        if order == "unlucky":
            open(mark, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"packed {order}"
