"""A text generator that needs no network and no download: a small Markov model over a bundled book.

It is no language model and knows nothing. It remembers which word followed each pair of words in "Alice's
Adventures in Wonderland" (Lewis Carroll, 1865; data/books), and draws the next word among those.
"""

import random
import re
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator
from functools import cache

from services.simulation import simulate_waiting, simulate_work
from services.text_request import TextRequest
from settings import ROOT

BOOK = ROOT / "data" / "books" / "alice.txt"
SENTENCE_ENDS = (".", "!", "?", ".'", "!'", "?'")

# Each model, and the seconds between its words. A program writes faster than anybody can watch: the second
# one is as slow as a large language model on a small machine. Use it to look, to cancel, to kill the worker.
MODELS = {"markov": 0.0, "markov-slow": 0.1}

Pair = tuple[str, str]


def pieces(request: TextRequest) -> Generator[str]:
    """Give the words of the text, one by one. The same prompt and seed give the same text."""
    for word in _words(request):
        if seconds := MODELS[request.model]:
            simulate_work(seconds)
        yield f"{word} "


async def pieces_async(request: TextRequest) -> AsyncGenerator[str]:
    """Do the same. Other coroutines run between two words."""
    for word in _words(request):
        await simulate_waiting(MODELS[request.model])
        yield f"{word} "


def _words(request: TextRequest) -> Generator[str]:
    followers, openings = model()
    # Without a seed each text is another one. The prompt is part of it: two prompts give two texts.
    chance = random.Random(None if request.seed is None else f"{request.seed} {request.prompt}")
    pair = _pair_of(request.prompt, followers) or chance.choice(openings)
    for _ in range(request.max_tokens):
        if pair not in followers:  # the last words of the book
            pair = chance.choice(openings)
        pair = pair[1], chance.choice(followers[pair])
        yield pair[1]


def _pair_of(prompt: str, followers: dict[Pair, list[str]]) -> Pair | None:
    """Return the last two words of the prompt that stand together in the book, so that the text goes on there."""
    words = prompt.split()
    pairs = zip(words[-2::-1], words[:0:-1], strict=True)
    return next((pair for pair in pairs if pair in followers), None)


@cache
def model() -> tuple[dict[Pair, list[str]], list[Pair]]:
    """Return the words that follow each pair, as often as they do, and the pairs before a sentence."""
    words = re.findall(r"\S+", BOOK.read_text().partition("\n\n\n")[2])
    followers: defaultdict[Pair, list[str]] = defaultdict(list)
    for first, second, third in zip(words, words[1:], words[2:], strict=False):
        followers[first, second].append(third)
    openings = [pair for pair in followers if pair[1].endswith(SENTENCE_ENDS)]
    return dict(followers), openings
