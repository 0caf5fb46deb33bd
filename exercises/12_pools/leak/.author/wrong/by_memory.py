"""it has not grown enough"""

import os

from celery_app import app

# What follows `celery worker`.
OPTIONS = ["--max-memory-per-child", "900000"]
POOL = "prefork"

leaked: list[bytes] = []


@app.task
def leak() -> dict[str, int]:
    """Keep something for ever. Return the process, and how much it has kept."""
    leaked.append(b"x" * 1000)
    return {"process": os.getpid(), "kept": len(leaked)}
