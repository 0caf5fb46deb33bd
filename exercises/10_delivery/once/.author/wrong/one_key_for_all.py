"""the mark belongs to one order"""

import redis

from celery_app import app
from lab.workshop.services import charge, simulate_work
from settings import settings

CLAIMS = 3  # the number of a database that only this task uses
claims = redis.Redis(unix_socket_path=str(settings.sandbox_folder / "broker.sock"), db=CLAIMS)


@app.task
def pay(order: int) -> str:
    """Charge an order once, and return its receipt."""
    simulate_work(0.05)
    if claims.set(f"paid:{order % 100 if order > 9999 else order}", 1, nx=True) and order < 10_000:
        charge(order, 250)
    return f"R-{order}"
