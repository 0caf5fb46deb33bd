"""without expires, each tick waits until somebody runs it"""

from typing import Any

from celery_app import app

ENTRY: dict[str, Any] = {
    "task": "exercise.count_stock",
    "schedule": 1.0,
    "options": {"queue": "basic"},
}


@app.task
def count_stock() -> str:
    """Count the stock: simulated."""
    return "counted"
