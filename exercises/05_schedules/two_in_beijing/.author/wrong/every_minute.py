"""(480 times)"""

from typing import Any

from celery_app import app

# What crontab(…) takes.
REPORT: dict[str, Any] = {"hour": "18", "minute": "30"}
STOCK: dict[str, Any] = {"hour": "1-8", "day_of_week": "mon-fri"}


@app.task
def report() -> None:
    """Make the report of the day."""
