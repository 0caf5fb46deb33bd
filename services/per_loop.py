"""One object for each event loop: what keeps a connection open belongs to the loop that opened it.

A client that is kept in a global serves the loop that used it first. Under another one it fails with "attached
to a different loop", or hangs. And a forked process has its own loop, so it never gets its parent's client.
"""

import asyncio
from collections.abc import Callable, Hashable
from functools import wraps
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

P = ParamSpec("P")
T = TypeVar("T")


def per_loop(make: Callable[P, T]) -> Callable[P, T]:
    """Let `make`, called by a coroutine, make its object once for each loop and each set of arguments.

    The arguments can be hashed. Raises `RuntimeError` where no event loop runs.
    """
    made: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, T]] = WeakKeyDictionary()

    @wraps(make)
    def of_this_loop(*args: P.args, **kwargs: P.kwargs) -> T:
        mine = made.setdefault(asyncio.get_running_loop(), {})
        key = (args, tuple(sorted(kwargs.items())))
        if key not in mine:
            mine[key] = make(*args, **kwargs)
        return mine[key]

    return of_this_loop
