"""Simulated work and simulated faults, for lessons in which the work itself does not matter.

Nothing here stands for work in the real-world modules.
"""

import asyncio
import time


def simulate_work(seconds: float) -> None:
    """Take `seconds` of time and do nothing, like a task that waits for another service."""
    time.sleep(seconds)


async def simulate_waiting(seconds: float) -> None:
    """Take `seconds` of time, and let other coroutines run meanwhile, like a wait for another service."""
    await asyncio.sleep(seconds)


def simulate_service(attempt: int, failures: int, error: type[Exception] = ConnectionError) -> str:
    """Behave like a service that is away for the first `failures` calls.

    `attempt` counts from 1. Raises `error` while `attempt` is at most `failures`, then returns a line.
    """
    if attempt <= failures:
        raise error(f"simulated: the service is away (attempt {attempt} of {failures} that fail)")
    return f"the service answered at attempt {attempt}"
