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


# What a failing service says, by the kind of error.
COMPLAINTS: dict[type[Exception], str] = {
    ConnectionError: "the service is away",
    ValueError: "the service refuses the data",
    RuntimeError: "the service has failed, and does not say why",
}


def simulate_service(attempt: int, failures: int, error: type[Exception] = ConnectionError) -> str:
    """Behave like a service that fails in the first `failures` calls.

    `attempt` counts from 1. Raises `error`, one of `COMPLAINTS`, while `attempt` is at most `failures`, then
    returns a line.
    """
    if attempt <= failures:
        raise error(f"simulated: {COMPLAINTS[error]} (attempt {attempt} of {failures} that fail)")
    return f"the service answered at attempt {attempt}"
