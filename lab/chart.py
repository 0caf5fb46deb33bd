"""Runs of tasks as a chart: text for a terminal, SVG for a notebook."""

import io
import math
import statistics
import textwrap
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size

from lab.console import printable
from lab.runs import ENDINGS, Run
from lab.scale import Scale
from lab.shorten import shortened

if TYPE_CHECKING:  # matplotlib takes half a second to load, so only a program that draws loads it
    from matplotlib.axes import Axes

MOST_ROWS = 40
SIGNS = {
    ".": "waits in the queue",
    ":": "waits in the worker",
    "=": "runs",
    "?": "no end seen",
    "~": "time left out",
    "D": "redelivered",
} | dict(ENDINGS.values())
FILLS: dict[str, dict[str, Any]] = {
    ".": {"facecolor": "white", "edgecolor": "#888888", "linestyle": ":"},
    ":": {"facecolor": "#eeeeee", "edgecolor": "#888888", "hatch": "...."},
    "=": {"facecolor": "#4c78a8", "edgecolor": "#22344a"},
    "?": {"facecolor": "white", "edgecolor": "#a02020", "hatch": "////"},
}
ID_LETTERS = 8
SVG_LABEL_LETTERS = 45
SVG_WORKER_LETTERS = 20
LEGEND_COLUMNS = 5
STAYS = "\u2007"  # a blank at which no line is broken
NO_EVENTS = "Do the workers send events? celery -A celery_app control enable_events"


def chart(runs: Sequence[Run], width: int = 110, rows: int = MOST_ROWS) -> str:
    """Draw runs as text of `width` columns, at most `rows` of them, and count all of them.

    Signs and letters are in `SIGNS`; the chart explains those that it uses.
    """
    if not runs:
        return f"No task event was seen. {NO_EVENTS}"
    shown, others = choose(runs, rows)
    scale = Scale(runs)
    labels = labels_of(shown, width // 3)
    label_width = max(map(cell_len, labels))  # Chinese letters are two columns wide
    lasted = ["" if run.ran is None else f"{run.ran:.3f} s" for run in shown]
    columns = max(10, width - label_width - 6 - max(8, *map(len, lasted)))
    lines = [f"{'':{label_width}}   0 s{f'{scale.seconds:.2f} s':>{columns - 3}}"]
    bars = [_bar(run, scale, columns) for run in shown]
    workers = shortened([printable(run.worker) or "no worker yet" for run in shown], width)
    last = None
    for label, bar, worker, seconds in zip(labels, bars, workers, lasted, strict=True):
        if worker != last:
            last = worker
            lines.append(worker)
        lines.append(f"  {set_cell_size(label, label_width)} |{bar}| {seconds}".rstrip())
    used = "".join(bars)
    entries = [f"{sign} {meaning}".replace(" ", STAYS) for sign, meaning in SIGNS.items() if sign in used]
    lines += [line.replace(STAYS, " ") for line in textwrap.wrap("  ".join(entries), width)]
    if scale.folds:
        lines.append(f"Left out, because nothing runs: {left_out(scale)}.")
    lines.append(counts(runs))
    if others:
        lines.append(not_drawn(others))
    return "\n".join(lines)


def svg_chart(runs: Sequence[Run], rows: int = MOST_ROWS) -> str:
    """Draw runs as an SVG image, at most `rows` of them, and count all of them."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shown, others = choose(runs, rows)
    image = io.StringIO()
    # Text stays text: it can be searched, copied and read aloud. A name with dollar signs is no formula.
    with rc_context({"svg.fonttype": "none", "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser has the letters that this font lacks
        figure = Figure(layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel("seconds", fontsize="small")
        title = "No task event was seen."
        used = ""
        if shown:
            used = _draw_rows(axes, shown, *_bounds(runs))
            title = counts(runs) + (f" Not drawn: {len(others)}." if others else "")
        figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
        patches = [Patch(label=SIGNS[sign], **style) for sign, style in FILLS.items() if sign in used]
        patches += [
            Patch(label=f"{sign} {meaning}", alpha=0)
            for sign, meaning in SIGNS.items()
            if sign.isalpha() and sign in used
        ]
        figure.legend(handles=patches, loc="outside lower left", ncols=LEGEND_COLUMNS, fontsize="small")
        figure.set_size_inches(10, 1.2 + 0.25 * (len(shown) + math.ceil(len(patches) / LEGEND_COLUMNS)))
        figure.savefig(image, format="svg")
    return image.getvalue()


# --- what is drawn ----------------------------------------------------------------------------------------


def choose(runs: Sequence[Run], rows: int) -> tuple[list[Run], list[Run]]:
    """Return the runs to draw, worker by worker, and the others.

    When there are too many, those that went wrong or were redelivered are drawn first, then the longest.
    """
    if rows < 1:
        raise ValueError(f"rows={rows!r}: must be 1 or more")

    def interest(run: Run) -> tuple[bool, float]:
        return (run.redelivered or run.outcome != "succeeded", run.times[-1] - run.times[0])

    ranked = sorted(runs, key=interest, reverse=True)
    return sorted(ranked[:rows], key=lambda run: (run.worker, run.times[0])), ranked[rows:]


def labels_of(runs: Sequence[Run], width: int) -> list[str]:
    """Return what stands before each bar: the task and its id, cut to `width`. Different tasks stay so."""
    letters = ID_LETTERS
    ids = {run.task_id for run in runs}
    while len({task_id[:letters] for task_id in ids}) < len(ids):
        letters += 1
    heads = [printable(f"{run.name.rpartition('.')[2]} {run.task_id[:letters]}") for run in runs]
    notes = [_note(run) for run in runs]
    cut = shortened(heads, max(ID_LETTERS, width - max(map(len, notes), default=0)))
    return [head + note for head, note in zip(cut, notes, strict=True)]


def _note(run: Run) -> str:
    return (f" retry {run.retries}" if run.retries else "") + (" redelivered" if run.redelivered else "")


def left_out(scale: Scale) -> str:
    """Say how long each part is that is left out of the axis."""
    return ", ".join(f"{fold.seconds:.1f} s" for fold in scale.folds)


def spans(run: Run, end: float) -> list[tuple[str, float, float]]:
    """Return the parts of a run: the sign of each, and from when to when. `end` is the end of the chart."""
    steps = [(".", run.sent), (":", run.received), ("?" if run.ended is None else "=", run.started)]
    begins = [(sign, moment) for sign, moment in steps if moment is not None]
    ends = [*(moment for _, moment in begins[1:]), end if run.ended is None else run.ended]
    # Clocks of two machines may differ: no part ends before it begins.
    return [(sign, begin, max(begin, until)) for (sign, begin), until in zip(begins, ends, strict=False)]


def _bounds(runs: Sequence[Run]) -> tuple[float, float]:
    moments = [moment for run in runs for moment in run.times]
    return min(moments), max(moments)


def counts(runs: Sequence[Run]) -> str:
    """Count the runs by how they ended, in a sentence."""
    outcomes = Counter("started, no end seen" if run.outcome == "started" else run.outcome for run in runs)
    told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    redelivered = sum(run.redelivered for run in runs)
    tasks = len({run.task_id for run in runs})
    return f"Runs {len(runs)}, tasks {tasks}: {told}" + (
        f"; {redelivered} redelivered." if redelivered else "."
    )


def not_drawn(others: Sequence[Run]) -> str:
    """Say what a chart leaves out."""
    ran = [run.ran for run in others if run.ran is not None]
    median = f" Their median: {statistics.median(ran):.3f} s." if ran else ""
    return f"Not drawn: {len(others)} of these runs.{median}"


# --- how it is drawn --------------------------------------------------------------------------------------


def _bar(run: Run, scale: Scale, columns: int) -> str:
    def at(moment: float) -> int:
        return round(scale.at(moment) * (columns - 1))

    bar = [" "] * columns
    for sign, since, until in spans(run, scale.end):
        bar[at(since) : at(until) + 1] = sign * (at(until) + 1 - at(since))
    for fold in scale.folds:
        first, last = round(fold.begin * (columns - 1)) + 1, round(fold.end * (columns - 1))
        bar[first:last] = "~" * (last - first)
    if run.ended is not None:
        bar[at(run.ended)] = ENDINGS[run.outcome][0]
    if run.redelivered:  # before its end, also where both fall into one column
        come = at(run.times[0])
        bar[max(0, come - 1) if run.ended is not None and come == at(run.ended) else come] = "D"
    return "".join(bar)


def _draw_rows(axes: "Axes", shown: Sequence[Run], begin: float, end: float) -> str:
    """Draw one row for each run. Return the signs and letters that were used."""
    used = ""
    for row, run in enumerate(shown):
        last = run.times[-1]
        for sign, since, last in spans(run, end):
            axes.barh(row, last - since, left=since - begin, height=0.7, **FILLS[sign])
            used += sign
        # The letter beside the bar says how it ended, also without colour.
        letters = ("D" if run.redelivered else "") + ENDINGS.get(run.outcome, ("?", ""))[0]
        axes.text(last - begin, row, f" {letters}", va="center", fontsize="small")
        used += letters
    workers = shortened([printable(run.worker) or "no worker" for run in shown], SVG_WORKER_LETTERS)
    labels = zip(labels_of(shown, SVG_LABEL_LETTERS), workers, strict=True)
    axes.set_yticks(range(len(shown)), [f"{label} · {worker}" for label, worker in labels])
    axes.tick_params(axis="y", labelsize="small")
    axes.invert_yaxis()
    lasted = max(end - begin, 1e-6)
    axes.set_xlim(-0.02 * lasted, 1.04 * lasted)  # also where a run has no bar: its letter is inside
    return used
