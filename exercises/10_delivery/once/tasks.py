"""A payment that may come twice."""

import redis

from celery_app import app
from lab.workshop.services import charge, simulate_work
from settings import settings

CLAIMS = 3  # the number of a database that only this task uses
claims = redis.Redis(unix_socket_path=str(settings.sandbox_folder / "broker.sock"), db=CLAIMS)


@app.task
def pay(order: int) -> str:
    """Charge an order once, and return its receipt."""
    # TODO 1: was it charged before?
    # TODO 2: two may ask that at the same moment.
    # TODO 3: keep the orders apart.
    simulate_work(0.05)
    charge(1, 250)
    return f"R-{order}"
