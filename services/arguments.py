"""Checked arguments: a message comes from outside, so its values are checked before they are used.

What is wrong is told by place and value, in a text that stays short: errors are stored, sent and logged.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from pydantic import ConfigDict, ValidationError, validate_call
from pydantic_core import ErrorDetails

from services.error_texts import shown

P = ParamSpec("P")
R = TypeVar("R")

MAX_PROBLEMS = 5  # in one text


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of `function` against its type annotations at each call.

    Text is not converted: "5" is no number. NaN and infinity are refused, because JSON has no such values.

    Raises `TypeError` for missing or unknown arguments, and `ValueError` that names each bad argument,
    its value and what was expected. Pydantic's own error does not survive a JSON result backend: it
    would reach the caller without its text.
    """
    signature = inspect.signature(function)
    config = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    validated = validate_call(config=config)(function)

    @wraps(function)
    def checked_function(*args: P.args, **kwargs: P.kwargs) -> R:
        arguments = signature.bind(*args, **kwargs).arguments
        try:
            return validated(*args, **kwargs)
        except ValidationError as error:
            if error.title != function.__name__:  # raised inside, not about our arguments
                raise
            problems = explain(error, arguments, names=list(signature.parameters))
            raise ValueError(f"{function.__name__}: {problems}") from None

    # Celery reads it to refuse a call with missing arguments before anything is sent.
    checked_function.__signature__ = signature  # type: ignore[attr-defined]
    return checked_function


def explain(
    error: ValidationError, arguments: Mapping[str, object], names: Sequence[str] | None = None
) -> str:
    """Return what is wrong with `arguments`, as `result.days='three': input should be a valid integer`.

    `names` are the names of arguments that the error knows by their positions.
    """
    found: dict[tuple[str, object], list[str]] = {}
    for problem in error.errors(include_url=False):
        first, *inner = problem["loc"]
        name = names[first] if names and isinstance(first, int) else str(first)
        missing = inner.pop() if problem["type"] == "missing" else None
        place = _place_and_value(name, arguments[name], _way(arguments[name], inner))
        # There is one problem for each type that the argument may have.
        reasons = found.setdefault((place, missing), [])
        reason = _reason(problem)
        reasons.append(reason.removeprefix("input should be ") if reasons else reason)
    texts = [f"{place}: {' or '.join(reasons)}" for (place, _), reasons in found.items()]
    more = [f"and {len(texts) - MAX_PROBLEMS:,} more"] if len(texts) > MAX_PROBLEMS else []
    return "; ".join(texts[:MAX_PROBLEMS] + more)


def _way(value: Any, location: Sequence[Any]) -> list[Any]:
    """Return the steps of a problem's location that lead into `value`. The others are names of types."""
    if not location:
        return []
    step, *rest = location
    without = _way(value, rest)
    return max(without, [step, *_way(value[step], rest)], key=len) if _leads(step, value) else without


def _leads(step: Any, value: Any) -> bool:
    if isinstance(value, Mapping):
        return step in value
    return isinstance(value, list | tuple) and isinstance(step, int)


def _place_and_value(name: str, value: Any, way: Sequence[Any]) -> str:
    for step in way:
        name += f"[{step}]" if isinstance(step, int) else f".{step:.80}"
        value = value[step]
    return f"{name}={shown(value)}"


def _reason(problem: ErrorDetails) -> str:
    if problem["type"] == "missing":
        return f"{problem['loc'][-1]} is missing"
    if problem["type"] == "union_tag_not_found":
        return problem["ctx"]["discriminator"].strip("'") + " is missing"
    if problem["type"] == "union_tag_invalid":  # the text of this one has no limit
        return f"use one of {problem['ctx']['expected_tags']}"
    if problem["type"] == "value_error":  # our own text
        return problem["msg"].removeprefix("Value error, ")
    return problem["msg"][0].lower() + problem["msg"][1:]
