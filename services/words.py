"""Counting words in a text."""

import re
from collections import Counter
from typing import TypedDict

_WORD = re.compile(r"\w+(?:['-]\w+)*")


class WordCount(TypedDict):
    """Words in all, different words, and the most frequent ones with their counts."""

    words: int
    different: int
    top: dict[str, int]


def count_words(text: str, top: int = 3) -> WordCount:
    """Count the words of `text`, without regard to case, and name the `top` most frequent."""
    counts = Counter(word.lower() for word in _WORD.findall(text))
    return {"words": counts.total(), "different": len(counts), "top": dict(counts.most_common(top))}
