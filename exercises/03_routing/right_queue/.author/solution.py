"""Two tasks for two kinds of workers."""

from typing import Any

from celery_app import app


@app.task
def print_label(order: int) -> str:
    """Print the label of an order: simulated."""
    return f"label {order}"


@app.task
def charge_card(order: int) -> str:
    """Charge the card of an order: simulated."""
    return f"receipt {order}"


def send_label(order: int) -> Any:
    """Send the printing of a label, and return the result of its task."""
    return print_label.apply_async((order,), queue="realworld")


def send_charge(order: int) -> Any:
    """Send the charge of a card, and return the result of its task."""
    return charge_card.apply_async((order,), queue="advanced")
