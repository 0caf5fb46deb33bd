"""argsrepr is a text for people"""

import base64
import json
from typing import Any

from celery_app import app


@app.task
def ship(order: int, express: bool = False) -> None:
    """Ship an order."""


def task_name(raw: str) -> str:
    """Return the name of the task in a message, as it lies in Redis."""
    return json.loads(raw)["headers"]["task"]


def arguments(raw: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments and the named arguments of a message."""
    headers = json.loads(raw)["headers"]
    return headers["argsrepr"], headers["kwargsrepr"]
