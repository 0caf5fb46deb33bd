"""A text generator that needs no network and no download: a small Markov model over a bundled text.

It is no language model and knows nothing. It remembers which word followed each pair of words in the first
pages of "Alice's Adventures in Wonderland" (Lewis Carroll, 1865; data/books), and draws the next among those.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from services.simulation import simulate_work
from services.text_request import TextRequest
from settings import ROOT

BOOK = ROOT / "data" / "books" / "alice.txt"
SENTENCE_ENDS = (".", "!", "?", ".'", "!'", "?'", ".)")

# Each model, and the simulated seconds before each word. A program writes faster than anybody can watch: the
# second one is as slow as a large language model. Use it to watch, to cancel, to kill the worker.
MODELS = {"markov": 0.0, "markov-slow": 0.1}

Pair = tuple[str, str]


def words(request: TextRequest) -> Iterator[str]:
    """Give the words of the text, one by one. The same prompt and seed give the same text.

    Raises `ValueError` if there is no such model.
    """
    if request.model not in MODELS:
        raise ValueError(
            f"model={request.model!r}: there is no such model here; use one of {', '.join(MODELS)}"
        )
    followers, openings = model()
    # Without a seed each text is another one. The prompt is part of it: two prompts give two texts.
    chance = random.Random(None if request.seed is None else f"{request.seed} {request.prompt}")
    pair = _pair_of(request.prompt, followers) or chance.choice(openings)
    for _ in range(request.max_tokens):
        if pair not in followers:  # the last words of the book
            pair = chance.choice(openings)
        pair = pair[1], chance.choice(followers[pair])
        simulate_work(MODELS[request.model])
        yield f"{pair[1]} "


def _pair_of(prompt: str, followers: dict[Pair, list[str]]) -> Pair | None:
    """Return the last two words of the prompt that stand together in the book: there the text goes on."""
    given = prompt.split()
    pairs = zip(given[-2::-1], given[:0:-1], strict=True)
    return next((pair for pair in pairs if pair in followers), None)


@cache
def model() -> tuple[dict[Pair, list[str]], list[Pair]]:
    """Return the words that follow each pair, as often as they do, and the pairs before a sentence."""
    told = re.findall(r"\S+", BOOK.read_text(encoding="utf-8").partition("\n\n\n")[2])
    followers: defaultdict[Pair, list[str]] = defaultdict(list)
    for first, second, third in zip(told, told[1:], told[2:], strict=False):
        followers[first, second].append(third)
    openings = [pair for pair in followers if pair[1].endswith(SENTENCE_ENDS)]
    return dict(followers), openings
