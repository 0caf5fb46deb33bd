"""it was too old when the worker got it"""

from typing import Any

from celery_app import app

ENTRY: dict[str, Any] = {
    "task": "exercise.count_stock",
    "schedule": 1.0,
    "options": {"queue": "basic", "expires": 0.001},
}


@app.task
def count_stock() -> str:
    """Count the stock: simulated."""
    return "counted"
