"""Simulated services that exercises call: a payment service, a rate service that is away at times.

What they are asked to do is written down in a file, so that a check can count it. They refuse as often as
the check has told them to.
"""

import asyncio
import fcntl
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from services.simulation import simulate_work

__all__ = ["Refused", "Unavailable", "charge", "convert", "loop_number", "note", "simulate_work", "stock_of"]

_numbers = itertools.count(1)
_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()


class Unavailable(ConnectionError):
    """The service is away. It may be back soon."""


class Refused(ValueError):
    """The service refuses what it was asked. It will refuse it again."""


def note(what: str, **details: Any) -> None:
    """Write down that something was done: the effect of a task."""
    line = json.dumps({"what": what, "pid": os.getpid(), "at": time.time(), **details})
    with (_folder() / "effects").open("a") as file:
        file.write(line + "\n")


def charge(order: int, pence: int) -> str:
    """Charge an order, and return the number of the receipt. Each call charges.

    Raises `Unavailable` while the service is away, and `Refused` for an amount below 1.
    """
    _answer("charge")
    if pence < 1:
        raise Refused(f"pence={pence}: must be 1 or more")
    note("charge", order=order, pence=pence)
    return f"R-{order}"


def convert(pence: int, currency: str) -> int:
    """Return an amount in another currency, in its smallest unit, at a simulated rate.

    Raises `Unavailable` while the service is away, and `Refused` for an unknown currency.
    """
    _answer("convert")
    rates = {"EUR": 1.25, "USD": 1.5, "CNY": 9.0}
    if currency not in rates:
        raise Refused(f"currency={currency!r}: use one of {', '.join(rates)}")
    note("convert", pence=pence, currency=currency)
    return round(pence * rates[currency])


def stock_of(article: str) -> int:
    """Return how many pieces of an article there are: the number of letters of its name, simulated.

    Raises `Unavailable` while the service is away, and `Refused` for an article without a name.
    """
    _answer("stock_of")
    if not article:
        raise Refused("article='': name an article")
    note("stock_of", article=article)
    return len(article)


def loop_number() -> int:
    """Return the number of the running event loop: one that no other loop of this process has had."""
    loop = asyncio.get_running_loop()
    if loop not in _loops:
        _loops[loop] = next(_numbers)
    return _loops[loop]


def _answer(service: str) -> None:
    """Take a turn of the service. Raises `Unavailable` while it is away."""
    with (_folder() / "turns").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        turns = json.loads(file.read() or "{}")
        left = int(turns.get(service, 0))
        turns[service] = left - 1
        file.truncate(0)
        file.write(json.dumps(turns))
    if left > 0:
        note("away", service=service)
        raise Unavailable(f"{service}: the service is away")


def _folder() -> Path:
    return Path(os.environ["EXERCISE_FOLDER"])
