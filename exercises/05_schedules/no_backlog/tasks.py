"""An entry of beat's schedule."""

from typing import Any

from celery_app import app

ENTRY: dict[str, Any] = {
    "task": "exercise.count_stock",
    "schedule": 1.0,
    # TODO 1: let a tick expire, in seconds.
    # TODO 2: not too early.
    "options": {"queue": "advanced"},
}


@app.task
def count_stock() -> str:
    """Count the stock: simulated."""
    return "counted"
