"""A calculator that knows four operations."""

from collections.abc import Callable
from operator import add, mul, sub, truediv

from services.error_texts import shown

OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "add": add,
    "subtract": sub,
    "multiply": mul,
    "divide": truediv,
}


def calculate(a: float, b: float, operation: str) -> float:
    """Return the result of `operation` on `a` and `b`.

    Raises `ValueError` for an operation that is not in `OPERATIONS`, and `ZeroDivisionError`.
    """
    try:
        function = OPERATIONS[operation]
    except KeyError:
        raise ValueError(f"operation={shown(operation)}: use one of {', '.join(OPERATIONS)}") from None
    return function(a, b)
