"""the hours are read in the app's time zone"""

from typing import Any

from celery_app import app

# What crontab(…) takes.
REPORT: dict[str, Any] = {"hour": "2", "minute": "30"}
STOCK: dict[str, Any] = {"hour": "1-8", "minute": "*/15", "day_of_week": "mon-fri"}


@app.task
def report() -> None:
    """Make the report of the day."""
