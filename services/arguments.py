"""Checked arguments: a message comes from outside, so its values are checked before they are used."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from pydantic import ConfigDict, ValidationError, validate_call

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of `function` against its type annotations at each call.

    Raises `TypeError` for missing or unknown arguments, and `ValueError` that names each bad argument,
    its value and what was expected. Pydantic's own error does not survive a JSON result backend: it
    would reach the caller without its text.
    """
    signature = inspect.signature(function)
    names = list(signature.parameters)
    validated = validate_call(config=ConfigDict(strict=True, arbitrary_types_allowed=True))(function)

    @wraps(function)
    def checked_function(*args: P.args, **kwargs: P.kwargs) -> R:
        signature.bind(*args, **kwargs)
        try:
            return validated(*args, **kwargs)
        except ValidationError as error:
            if error.title != function.__name__:  # raised inside, not about our arguments
                raise
            problems: dict[str, list[str]] = {}
            for problem in error.errors():  # one for each type that the argument may have
                first = problem["loc"][0]
                name = names[first] if isinstance(first, int) else first
                reasons = problems.setdefault(f"{name}={problem['input']!r}", [])
                reasons.append(problem["msg"].lower().removeprefix("input should be " if reasons else ""))
            text = "; ".join(f"{what}: {' or '.join(reasons)}" for what, reasons in problems.items())
            raise ValueError(f"{function.__name__}: {text}") from None

    # Celery reads it to refuse a call with missing arguments before anything is sent.
    checked_function.__signature__ = signature  # type: ignore[attr-defined]
    return checked_function
