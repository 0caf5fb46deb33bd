"""Reminders at a time that a customer has chosen."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from celery_app import app

BEIJING = ZoneInfo("Asia/Shanghai")


@app.task
def remind(order: int) -> str:
    """Remind a customer of an order: simulated."""
    return f"remember {order}"


def send_reminder(order: int, at: str) -> Any:
    """Send a reminder for a time in Beijing, such as "2026-12-01T18:00"."""
    eta = datetime.fromisoformat(at).replace(tzinfo=BEIJING)
    return remind.apply_async((order,), eta=eta)


def send_soon(order: int, minutes: int) -> Any:
    """Send a reminder for some minutes from now."""
    return remind.apply_async((order,), countdown=60 * minutes)
