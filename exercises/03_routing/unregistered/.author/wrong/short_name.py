"""no task has this name"""

from typing import Any

from celery_app import app


@app.task
def make_invoice(order: int) -> str:
    """Make the invoice of an order: simulated."""
    return f"invoice {order}"


def send_invoice(order: int) -> Any:
    """Send the making of an invoice, by the task's name, and return the result of the task."""
    return app.send_task("make_invoice", (order,), queue="basic")


def is_known(name: str) -> bool:
    """Return whether the app has a task with this name."""
    return name in app.tasks
