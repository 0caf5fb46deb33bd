"""Six questions at once."""

import asyncio

from celery_app import app
from lab.workshop.services import note
from tasks.base import AsyncTask


async def ask(machine: int) -> int:
    """Ask a machine: simulated."""
    note("asked", machine=machine)
    await asyncio.sleep(0.1)
    note("answered", machine=machine)
    return machine * machine


@app.task(base=AsyncTask)
async def ask_all(machines: list[int]) -> list[int]:
    """Return the answer of each machine."""
    # TODO 1: in the order of the machines.
    # TODO 2: all at the same time.
    return [await ask(machine) for machine in sorted(machines)]
