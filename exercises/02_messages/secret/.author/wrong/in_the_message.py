"""the password is in the message, for everybody who can read the queue"""

from typing import Any

from celery_app import app

PASSWORDS = {"ada": "correct horse battery", "bob": "hunter2", "eve": "a-very-long-secret"}


@app.task
def check_password(password):
    """Return whether the password of `user` is long enough."""
    return len(password) >= 12


def check_login(user: str) -> Any:
    """Send the check of a user's password, and return the result of its task."""
    return check_password.delay(PASSWORDS[user])
