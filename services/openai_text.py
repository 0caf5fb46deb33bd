"""Text from a server that speaks the OpenAI protocol: OpenAI's own, Ollama, vLLM, llama.cpp and many others.

The client library would retry by itself, in the worker, while its task waits. Here Celery retries: the worker
is free meanwhile, and the wait survives its end. So the library's own retries are off, and what it raises is
told apart: may another try succeed, or not?
"""

import os
from collections.abc import AsyncGenerator, Generator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from json import JSONDecodeError
from typing import Any

import openai
from openai.types.chat import ChatCompletionChunk

from services.error_texts import shown
from services.per_loop import per_loop
from services.text_request import PermanentError, TemporaryError, TextRequest
from settings import settings

LONGEST_WAIT = 600  # seconds; a server that wants more is not worth to wait for
CUT = "ended its answer in the middle"

# What the library raises; whether another try may succeed; what it means. The first row that fits counts.
POLICY: tuple[tuple[type[Exception], bool, str], ...] = (
    (openai.AuthenticationError, False, "refuses OPENAI_API_KEY: correct it"),
    (openai.PermissionDeniedError, False, "does not allow this key what is asked: ask its owner"),
    (openai.NotFoundError, False, "has no such model: correct the model, or OPENAI_BASE_URL"),
    (openai.RateLimitError, True, "has too many requests"),
    (openai.ConflictError, True, "is busy with something else"),
    (openai.InternalServerError, True, "has failed"),  # 500 and above
    (openai.APIStatusError, False, "refuses the request: correct it"),
    (openai.APITimeoutError, True, "does not answer in time"),
    (openai.APIConnectionError, True, "cannot be reached, or has hung up"),
    (openai.APIResponseValidationError, False, "does not speak the OpenAI protocol: correct OPENAI_BASE_URL"),
    (openai.APIError, True, "reports an error in the middle of its answer"),
    (JSONDecodeError, True, "sends what cannot be read"),
)
NEVER_AGAIN = {"insufficient_quota"}  # a 429 that no waiting mends: the account is empty


def pieces(request: TextRequest) -> Generator[str]:
    """Give the text in pieces, as they arrive. Closing it ends the answer.

    Raises `TemporaryError` and `PermanentError`, also in the middle.
    """
    has_ended = False
    try:
        with _client(os.getpid()).chat.completions.create(**_asked(request), stream=True) as stream:
            for chunk in stream:
                has_ended = has_ended or _is_last(chunk)
                if piece := _piece(chunk):
                    yield piece
    except (openai.OpenAIError, JSONDecodeError) as error:
        raise explain(error, request) from error
    if not has_ended:
        raise TemporaryError(_text(request, CUT))


async def pieces_async(request: TextRequest) -> AsyncGenerator[str]:
    """Do the same for `async for`."""
    has_ended = False
    try:
        async with await _async_client().chat.completions.create(**_asked(request), stream=True) as stream:
            async for chunk in stream:
                has_ended = has_ended or _is_last(chunk)
                if piece := _piece(chunk):
                    yield piece
    except (openai.OpenAIError, JSONDecodeError) as error:
        raise explain(error, request) from error
    if not has_ended:
        raise TemporaryError(_text(request, CUT))


@cache
def _client(pid: int) -> openai.OpenAI:
    # The process id is part of the key: a forked worker must not talk over its parent's connections.
    return openai.OpenAI(**_options())


@per_loop
def _async_client() -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(**_options())


def _options() -> dict[str, Any]:
    assert settings.openai_api_key
    return {
        "api_key": settings.openai_api_key.get_secret_value(),
        "base_url": settings.openai_base_url,
        "timeout": settings.openai_timeout_seconds,
        "max_retries": 0,
    }


def _asked(request: TextRequest) -> dict[str, Any]:
    return {
        "model": request.model,
        "messages": [{"role": "user", "content": request.prompt}],
        "max_tokens": request.max_tokens,  # the name that all servers know
        "seed": openai.omit if request.seed is None else request.seed,
    }


def _piece(chunk: ChatCompletionChunk) -> str | None:
    return chunk.choices[0].delta.content if chunk.choices else None


def _is_last(chunk: ChatCompletionChunk) -> bool:
    return bool(chunk.choices and chunk.choices[0].finish_reason)


def explain(error: Exception, request: TextRequest) -> TemporaryError | PermanentError:
    """Return what the library's error means here."""
    may_help, does = next(
        ((may_help, does) for kind, may_help, does in POLICY if isinstance(error, kind)), (False, "failed")
    )
    # Its text may repeat the request, which holds the prompt. Never the key: the library hides it.
    text = f"{_text(request, does)} ({shown(str(error))})"
    seconds = _retry_after(error)
    if not may_help or getattr(error, "code", None) in NEVER_AGAIN:
        return PermanentError(text)
    if seconds and seconds > LONGEST_WAIT:
        return PermanentError(f"{text}. It wants to be left alone for {seconds:,.0f} seconds: run it then")
    return TemporaryError(text, seconds)


def _text(request: TextRequest, does: str) -> str:
    server = settings.openai_base_url or "api.openai.com"
    return f"model={request.model!r}: the server at {server} {does}"


def _retry_after(error: Exception) -> float | None:
    """Return the seconds of the header Retry-After, which is a number or a date. Source: RFC 9110, 10.2.3."""
    headers = error.response.headers if isinstance(error, openai.APIStatusError) else {}
    value = headers.get("retry-after", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a time zone
        return None
