"""What a text is generated from, and what may go wrong: shared by all generators."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from services.arguments import checked

MAX_PROMPT = 10_000  # characters
MAX_TOKENS = 4_000  # one run's events then fit into the stream (token_stream.py)

Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)]
Model = Annotated[str, Field(min_length=1, max_length=100)]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True)
class TextRequest:
    """A text that is wanted: at most `max_tokens` pieces. The same `seed` may give the same text again."""

    prompt: str
    model: str
    max_tokens: int
    seed: int | None


class PermanentError(Exception):
    """Another try would fail in the same way: a refused key, an unknown model."""


class TemporaryError(Exception):
    """Another try may succeed. `seconds` is how long the server wants to be left alone, if it says so."""

    def __init__(self, text: str, seconds: float | None = None) -> None:
        super().__init__(text, seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return str(self.args[0])


@checked
def text_request(
    prompt: Prompt, model: Model = "markov", max_tokens: Tokens = 200, seed: Seed | None = None
) -> TextRequest:
    """Return the request. Raises `ValueError` that names each argument that cannot be."""
    return TextRequest(prompt, model, max_tokens, seed)
