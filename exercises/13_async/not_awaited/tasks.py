"""A task that is a coroutine."""

import asyncio

from celery_app import app
from lab.workshop.services import loop_number, note
from tasks.base import AsyncTask


# TODO 1: Celery does not await this.
# TODO 2: one loop for all.
@app.task
async def greet(name: str) -> str:
    """Greet somebody, after waiting for another machine: simulated."""
    await asyncio.sleep(0.01)
    note("loop", loop=loop_number())
    return f"hello, {name}"
