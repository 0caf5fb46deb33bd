"""asyncio.run makes a new loop for each task"""

import asyncio

from celery_app import app
from lab.workshop.services import loop_number, note
from tasks.base import AsyncTask


@app.task
def greet(name):
    return asyncio.run(_greet(name))


async def _greet(name):
    """Greet somebody, after waiting for another machine: simulated."""
    await asyncio.sleep(0.01)
    note("loop", loop=loop_number())
    return f"hello, {name}"
