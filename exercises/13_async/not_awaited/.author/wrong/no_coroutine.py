"""it has no async def"""

import asyncio

from celery_app import app
from lab.workshop.services import note
from tasks.base import AsyncTask


@app.task
def greet(name):
    """Greet somebody, after waiting for another machine: simulated."""
    note("loop", loop=1)
    return f"hello, {name}"
