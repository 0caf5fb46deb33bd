"""A worker whose children are replaced."""

import os

from celery_app import app

# What follows `celery worker`.
# TODO 1: three tasks for each child.
OPTIONS: list[str] = []
# TODO 2: a pool with children.
POOL = "threads"

leaked: list[bytes] = []


@app.task
def leak() -> dict[str, int]:
    """Keep something for ever. Return the process, and how much it has kept."""
    leaked.append(b"x" * 1000)
    return {"process": os.getpid(), "kept": len(leaked)}
