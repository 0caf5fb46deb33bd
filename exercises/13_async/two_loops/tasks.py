"""Bookings that share a lock."""

import asyncio

from celery_app import app

lock = asyncio.Lock()
stock = {"tea": 3}


async def take(article: str) -> bool:
    """Take one piece, if there is one: simulated, with a wait between the look and the change."""
    async with lock:
        left = stock[article]
        await asyncio.sleep(0.01)
        stock[article] = left - 1 if left else 0
        return left > 0


async def take_two(article: str) -> int:
    """Take 2 pieces at once, and return how many there were."""
    return sum(await asyncio.gather(take(article), take(article)))


# TODO 1: not a new loop for each task.
# TODO 2: keep the lock.
@app.task
def book(article: str) -> int:
    """Book 2 pieces at once, and return how many there were."""
    return asyncio.run(take_two(article))
