"""Where a moment stands on the axis of a chart. A long time in which nothing runs is folded.

A message that a killed worker held comes again after the visibility timeout. Drawn to scale, that wait would
press all else into a few points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab.runs import Run

LONG_SECONDS = 5.0
FOLD_WIDTH = 0.06  # of the axis


@dataclass(frozen=True)
class Fold:
    """A part of the axis that is left out: its place (0 to 1), and how many seconds it stands for."""

    begin: float
    end: float
    seconds: float


class Scale:
    """The axis of a chart of `runs`, from their first moment to their last, or to `now`."""

    def __init__(self, runs: Sequence[Run], now: float | None = None) -> None:
        moments = {moment for run in runs for moment in run.times} | ({now} if now is not None else set())
        self.begin, self.end = min(moments), max(moments)
        marks = sorted(moments)
        self._folded = _folded(runs, list(pairwise(marks)), now)
        self._shown = self.end - self.begin - sum(end - begin for begin, end in self._folded)

    @property
    def seconds(self) -> float:
        """How long the axis is, with what is folded."""
        return self.end - self.begin

    @property
    def folds(self) -> list[Fold]:
        """What is left out, in order."""
        return [Fold(self.at(begin), self.at(end), end - begin) for begin, end in self._folded]

    def at(self, moment: float) -> float:
        """Return the place of a moment, from 0 to 1."""
        before = [(begin, end) for begin, end in self._folded if begin < moment]
        left_out = sum(min(end, moment) - begin for begin, end in before)
        folded = sum((min(end, moment) - begin) / (end - begin) for begin, end in before) * FOLD_WIDTH
        share = (moment - self.begin - left_out) / max(self._shown, 1e-6)
        return min(1.0, max(0.0, share * (1 - FOLD_WIDTH * len(self._folded)) + folded))


def _folded(
    runs: Sequence[Run], parts: Sequence[tuple[float, float]], now: float | None
) -> list[tuple[float, float]]:
    """Return the parts of the axis that are long, in which nothing runs, and that would outweigh the rest."""
    idle = [part for part in parts if part[1] - part[0] >= LONG_SECONDS and not _is_busy(runs, part, now)]
    rest = parts[-1][1] - parts[0][0] - sum(end - begin for begin, end in idle) if parts else 0.0
    found = [(begin, end) for begin, end in idle if end - begin > rest]
    return found if len(found) * FOLD_WIDTH < 0.5 else []


def _is_busy(runs: Sequence[Run], part: tuple[float, float], now: float | None) -> bool:
    for run in runs:
        last = run.ended if run.ended is not None else now if now and goes_on(run, runs) else None
        if run.started is not None and last is not None and run.started <= part[0] and last >= part[1]:
            return True
    return False


def goes_on(run: Run, runs: Sequence[Run]) -> bool:
    """Tell whether `run` may still go on: no end was seen, and its task did not come again."""
    came_again = any(other.task_id == run.task_id and other.times[0] > run.times[0] for other in runs)
    return run.ended is None and not came_again
