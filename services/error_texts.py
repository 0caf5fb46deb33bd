"""Parts of error messages that stay short, whatever a message held: errors are stored, sent and logged."""

from collections.abc import Iterable
from reprlib import Repr

MAX_SHOWN = 200  # characters of a value
MAX_LISTED = 8  # names

_short = Repr()
_short.maxstring = _short.maxother = 160
_short.maxlist = _short.maxdict = 4
_short.maxlevel = 2


def shown(value: object) -> str:
    """Return `value` as it is written in Python. What is long or deep is cut, and shows `...` or `…`."""
    text = _short.repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def some_of(names: Iterable[str]) -> str:
    """Return "a, b, c" or, for more than a few names, "a, b, c, … and 12 more". For no name it is "none"."""
    every = sorted(names)
    more = len(every) - MAX_LISTED
    return (", ".join(every[:MAX_LISTED]) or "none") + (f", … and {more:,} more" if more > 0 else "")
