"""Text from a model, piece by piece: one way to ask, whichever generator answers.

A generator is a module with `pieces` and `pieces_async`. `markov` is built in and offline; every other name
is a model of the server that OPENAI_BASE_URL and OPENAI_API_KEY name.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing, closing
from typing import Protocol, TypedDict

from services import markov
from services.text_request import PermanentError, TextRequest
from settings import settings

REPORT_SECONDS = 1.0  # between two reports of progress: each is a write to the database


class TextResult(TypedDict):
    """A text, of how many pieces, and by which model."""

    text: str
    tokens: int
    model: str


class TextGenerator(Protocol):
    """Whoever gives text. Closing what it returns ends the work, also at a server."""

    @staticmethod
    def pieces(request: TextRequest) -> Generator[str]:
        """Give the text in pieces. Raises `TemporaryError` and `PermanentError`."""

    @staticmethod
    def pieces_async(request: TextRequest) -> AsyncGenerator[str]:
        """Do the same for `async for`."""


def generator_of(model: str) -> TextGenerator:
    """Return the generator of a model. Raises `PermanentError` if it cannot be used here."""
    if model in markov.MODELS:
        return markov
    if settings.openai_api_key is None:
        raise PermanentError(
            f"model={model!r}: use one of {', '.join(markov.MODELS)}. "
            "For a model of an OpenAI-compatible server set OPENAI_API_KEY and OPENAI_BASE_URL"
        )
    try:
        from services import openai_text
    except ModuleNotFoundError as error:
        raise PermanentError(
            f"model={model!r} needs the package {error.name!r}. Install it with `uv sync --group ai`"
        ) from error
    return openai_text


class _Text:
    """What has come so far, and whether it is time to report."""

    def __init__(self, request: TextRequest) -> None:
        self._request = request
        self._pieces: list[str] = []
        self._reported = time.monotonic()

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    def is_due(self) -> bool:
        if time.monotonic() - self._reported < REPORT_SECONDS:
            return False
        self._reported = time.monotonic()
        return True

    @property
    def percent(self) -> int:
        # A server may count other tokens than it sends pieces. 100 % is what the end says.
        return min(99, 100 * len(self._pieces) // self._request.max_tokens)

    @property
    def step(self) -> str:
        return f"{len(self._pieces):,} of at most {self._request.max_tokens:,} tokens"

    def result(self) -> TextResult:
        return {
            "text": "".join(self._pieces).strip(),
            "tokens": len(self._pieces),
            "model": self._request.model,
        }


def generate(
    request: TextRequest, on_token: Callable[[str], None], on_progress: Callable[[int, str], None]
) -> TextResult:
    """Generate a text. `on_token` gets each piece at once, `on_progress` a percentage and a few words.

    What these two raise ends the work. Raises `TemporaryError` and `PermanentError`.
    """
    text = _Text(request)
    with closing(generator_of(request.model).pieces(request)) as pieces:
        for piece in pieces:
            text.add(piece)
            on_token(piece)
            if text.is_due():
                on_progress(text.percent, text.step)
    return text.result()


async def generate_async(
    request: TextRequest,
    on_token: Callable[[str], Awaitable[None]],
    on_progress: Callable[[int, str], Awaitable[None]],
) -> TextResult:
    """Do the same, and let other coroutines run meanwhile. Cancelling it ends the work."""
    text = _Text(request)
    async with aclosing(generator_of(request.model).pieces_async(request)) as pieces:
        async for piece in pieces:
            text.add(piece)
            await on_token(piece)
            if text.is_due():
                await on_progress(text.percent, text.step)
    return text.result()
