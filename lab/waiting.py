"""Wait for something to become true, with a limit that fails loudly."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_for(what: str, look: Callable[[], Value], seconds: float = 15) -> Value:
    """Call `look` until it gives something true, and return that.

    Raises `TimeoutError` that names `what` after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (value := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} seconds")
        time.sleep(0.01)
    return value
