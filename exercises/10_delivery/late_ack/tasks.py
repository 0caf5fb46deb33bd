"""A task that survives the end of its worker."""

from celery_app import app
from lab.workshop.services import note, simulate_work


# TODO 1: when is the message acknowledged?
# TODO 2: which error is worth a second try?
@app.task(acks_late=False, autoretry_for=(ValueError,), retry_backoff=False, max_retries=1)
def pack(order: int) -> str:
    """Pack an order. Raises `ValueError` for an order that does not exist."""
    note("began", order=order)
    simulate_work(0.4)
    if order < 0:
        raise ValueError(f"order {order} does not exist")
    return f"packed {order}"
