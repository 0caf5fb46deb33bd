"""this task has another one"""

import asyncio

from celery_app import app
from tasks.base import AsyncTask

lock = asyncio.Lock()
stock = {"tea": 3}


async def take(article: str) -> bool:
    """Take one piece, if there is one: simulated, with a wait between the look and the change."""
    async with lock:
        left = stock[article]
        await asyncio.sleep(0.01)
        stock[article] = left - 1 if left else 0
        return left > 0


async def take_two(article):
    return sum(await asyncio.gather(take(article), take(article)))


@app.task
def book(article):
    return asyncio.new_event_loop().run_until_complete(take_two(article))
