"""Long texts cut to a width, so that different texts stay different."""

from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len


def shortened(texts: Sequence[str], width: int) -> list[str]:
    """Return each of `texts` with at most `width` columns; a Chinese letter takes two.

    A longer one loses its middle. Where two different ones would look the same, they get a number.
    """
    cuts = {text: _cut(text, width) for text in texts}
    shared = {cut for cut, times in Counter(cuts.values()).items() if times > 1}
    numbers: Counter[str] = Counter()
    for text, cut in cuts.items():
        if cut in shared:
            numbers[cut] += 1
            number = f"#{numbers[cut]}"
            cuts[text] = _cut(text, width - len(number)) + number
    return [cuts[text] for text in texts]


def _cut(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return text
    end = max(0, width - 1) // 3
    return f"{_first(text, width - 1 - end)}…{_first(text[::-1], end)[::-1]}"


def _first(text: str, width: int) -> str:
    taken = 0
    for at, sign in enumerate(text):
        taken += cell_len(sign)
        if taken > width:
            return text[:at]
    return text
