"""the lock is missing, or is a new one each time"""

import asyncio

from celery_app import app
from tasks.base import AsyncTask

lock = asyncio.Lock()
stock = {"tea": 3}


async def take(article: str) -> bool:
    """Take one piece, if there is one: simulated, with a wait between the look and the change."""
    async with asyncio.Lock():
        left = stock[article]
        await asyncio.sleep(0.01)
        stock[article] = left - 1 if left else 0
        return left > 0


@app.task(base=AsyncTask)
async def book(article: str) -> int:
    """Book 2 pieces at once, and return how many there were."""
    return sum(await asyncio.gather(take(article), take(article)))
