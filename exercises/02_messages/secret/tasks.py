"""Passwords, which no message may hold."""

from typing import Any

from celery_app import app

PASSWORDS = {"ada": "correct horse battery", "bob": "hunter2", "eve": "a-very-long-secret"}


@app.task
def check_password(password: str) -> bool:
    """Return whether a password is long enough."""
    # TODO 1: at least 12 letters.
    return len(password) >= 2


def check_login(user: str) -> Any:
    """Send the check of a user's password, and return the result of its task."""
    # TODO 2: send the user's name.
    return check_password.delay(PASSWORDS[user])
