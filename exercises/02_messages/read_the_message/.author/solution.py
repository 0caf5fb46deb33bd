"""A message, read without Celery."""

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
    args, kwargs, _ = json.loads(base64.b64decode(json.loads(raw)["body"]))
    return args, kwargs
