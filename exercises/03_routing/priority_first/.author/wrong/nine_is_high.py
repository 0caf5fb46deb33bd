"""on Redis, the smaller number is served first"""

from typing import Any

from celery_app import app


@app.task
def pack(order: str) -> str:
    """Pack an order: simulated."""
    return order


def send_normal(order: str) -> Any:
    """Send a normal order."""
    return pack.apply_async((order,), priority=5)


def send_express(order: str) -> Any:
    """Send an order that comes before normal ones."""
    return pack.apply_async((order,), priority=8)


def send_gift(order: str) -> Any:
    """Send an order that comes after normal ones."""
    return pack.apply_async((order,), priority=1)
