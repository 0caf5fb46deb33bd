"""A task that is sent by its name."""

from typing import Any

from celery_app import app


@app.task
def make_invoice(order: int) -> str:
    """Make the invoice of an order: simulated."""
    return f"invoice {order}"


def send_invoice(order: int) -> Any:
    """Send the making of an invoice, by the task's name, and return the result of the task."""
    # TODO 1: correct the name.
    return app.send_task("exercise.make_invoices", (order,), queue="basic")


def is_known(name: str) -> bool:
    """Return whether the app has a task with this name."""
    # TODO 2: ask the app.
    return name.endswith("make_invoices")
