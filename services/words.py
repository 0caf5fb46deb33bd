"""Counting words in a text of any script that puts something between its words."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import TypedDict

# Each character of a text is one of these kinds; what else there is separates words.
_KINDS = {"L": "l", "N": "d", "M": "m"}  # by the first letter of its category: letter, digit, mark
_SPECIAL = {
    **dict.fromkeys("'\u2019.", "j"),  # joins letters to letters, and digits to digits
    **dict.fromkeys("-\u2010\u2011\u00b7\u05f4", "h"),  # joins letters to letters
    ",": "c",  # joins digits to digits
    "_": "u",
    "\u200b": " ",  # a space without width
}
_WORD = re.compile(r"(?:l[lm]*(?:[jh]m*(?=l))?|d[dm]*(?:[jc]m*(?=d))?|u[um]*)+")


class WordCount(TypedDict):
    """Words in all, different words, and the most frequent ones with their counts."""

    words: int
    different: int
    top: dict[str, int]


def count_words(text: str, top: int = 3) -> WordCount:
    """Count the words of `text`, without regard to case, and name the `top` most frequent.

    A word is a run of letters and digits of any script, with the marks that belong to them. A single
    apostrophe, full stop, middle dot or hyphen between two letters is part of it, and a full stop, comma or
    apostrophe between two digits: don't, e.g, well-known, 1,000.5 are one word each. This is the rule of
    Unicode (UAX #29) but for the hyphen, where Unicode begins another word.

    Chinese, Japanese, Thai and others are written without spaces between words. To find those takes a
    dictionary: here a run up to the next space or sign counts as one word.
    """
    # NFC: an accented letter is the same word, whether it was typed as one character or as two.
    counts = Counter(word.lower() for word in _words(unicodedata.normalize("NFC", text)))
    return {"words": counts.total(), "different": len(counts), "top": dict(counts.most_common(top))}


def _words(text: str) -> Iterator[str]:
    kinds = text.translate({ord(character): _kind(character) for character in set(text)})
    for match in _WORD.finditer(kinds):
        if "l" in match[0] or "d" in match[0]:
            yield text[match.start() : match.end()]


def _kind(character: str) -> str:
    category = unicodedata.category(character)
    # Cf are marks that nobody sees, such as the joiners inside Persian and Hindi words.
    return _SPECIAL.get(character) or ("m" if category == "Cf" else _KINDS.get(category[0], " "))
