"""When jobs are due. The app's time zone is UTC."""

from typing import Any

from celery_app import app

# What crontab(…) takes.
# TODO 1: 02:30 in Beijing.
REPORT: dict[str, Any] = {"hour": "2", "minute": "30"}
# TODO 2: 09:00 to 16:45 in Beijing, Monday to Friday.
STOCK: dict[str, Any] = {"hour": "9-16", "minute": "*/15"}


@app.task
def report() -> None:
    """Make the report of the day."""
