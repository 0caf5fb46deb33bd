"""the body never ran"""

import asyncio

from celery_app import app
from lab.workshop.services import loop_number, note
from tasks.base import AsyncTask


@app.task(ignore_result=False)
async def greet(name: str) -> str:
    """Greet somebody, after waiting for another machine: simulated."""
    await asyncio.sleep(0.01)
    note("loop", loop=loop_number())
    return f"hello, {name}"
