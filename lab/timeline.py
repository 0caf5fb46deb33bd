"""Who ran what, and when: collected from the events that workers send, and drawn as a chart.

    with Timeline() as timeline:
        result = add.delay(4, 5)
        timeline.wait_for(result)
    timeline                          # in a notebook: a picture
    print(timeline.text())            # the same as text
    timeline.runs                     # the same as data

A retry and a redelivery are runs of their own: the same task id comes again.
"""

import contextlib
import io
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from celery.result import AsyncResult, GroupResult, ResultBase
from kombu import Connection, Consumer
from kombu.exceptions import OperationalError

from celery_app import app
from lab.diagram import lineage
from monitor import broker_channel

if TYPE_CHECKING:  # matplotlib takes half a second to load, so only a program that draws loads it
    from matplotlib.axes import Axes

START_SECONDS = 5.0
POLL_SECONDS = 0.1
SENT_SECONDS = 0.1
MOST_ROWS = 40
PROBE = "timeline-probe"

# How a run ends, the letter for it in charts, and what the letter means.
ENDINGS = {
    "succeeded": ("S", "succeeded"),
    "failed": ("F", "failed"),
    "retried": ("R", "will be retried"),
    "revoked": ("X", "revoked"),
    "rejected": ("J", "rejected"),
    "cancelled": ("C", "cancelled"),
}
FINAL = {"succeeded", "failed", "revoked", "rejected"}
SIGNS = {
    ".": "waits in the queue",
    ":": "waits in the worker",
    "=": "runs",
    "?": "no end seen",
    "D": "delivered again",
} | dict(ENDINGS.values())
FILLS: dict[str, dict[str, Any]] = {
    ".": {"facecolor": "white", "edgecolor": "#888888", "linestyle": ":"},
    ":": {"facecolor": "#eeeeee", "edgecolor": "#888888", "hatch": "...."},
    "=": {"facecolor": "#4c78a8", "edgecolor": "#22344a"},
    "?": {"facecolor": "white", "edgecolor": "#a02020", "hatch": "////"},
}
NO_EVENTS = "Do the workers send events? celery -A celery_app control enable_events"

Event = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run of a task: one delivery to a worker, up to its end. Times are seconds since 1970.

    `retries` is 0 in the first run. `again` means that the same message was delivered before.
    `outcome` is a key of `ENDINGS`, or how far it was seen to come: sent, received or started.
    `detail` is the text of the error. A time is None if it has not come, or if its event was lost. `ended` is
    when the worker's main process heard of the end: the next task of a chain may have started by then.
    """

    task_id: str
    name: str = ""
    worker: str = ""
    retries: int = 0
    again: bool = False
    sent: float | None = None
    received: float | None = None
    started: float | None = None
    ended: float | None = None
    outcome: str = "sent"
    detail: str = ""

    @property
    def times(self) -> list[float]:
        """The times that are known, in order."""
        return [
            moment for moment in (self.sent, self.received, self.started, self.ended) if moment is not None
        ]

    @property
    def waited(self) -> float | None:
        """Seconds from the sending (for a redelivery: from its arrival) to the start."""
        return None if self.started is None else self.started - self.times[0]

    @property
    def ran(self) -> float | None:
        """Seconds from the start to the end."""
        return None if self.started is None or self.ended is None else self.ended - self.started


class Timeline:
    """Collects the events of all tasks while its `with` block lasts. It may be read during and after.

    Raises `OperationalError` if the broker does not answer.
    """

    def __init__(self) -> None:
        self._events: dict[str, list[Event]] = defaultdict(list)  # by task id
        self.gaps = 0  # how often the connection was lost: events may be missing
        self._ended: dict[str, bool] = {}  # task id: whether it succeeded
        self._changed = threading.Condition()
        self._listening = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._collect, name="timeline", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._wait_until_it_listens()
        except BaseException:
            self._stop.set()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def runs(self) -> list[Run]:
        """All runs seen so far, in the order in which they began."""
        return runs_of(self.events)

    @property
    def events(self) -> list[Event]:
        """All events of tasks seen so far, task by task, as Celery sent them."""
        with self._changed:
            return [event for events in self._events.values() for event in events]

    def wait_for(self, result: ResultBase | str, seconds: float = 15) -> list[Run]:
        """Wait for the final events of a task, and return its runs.

        `result` is a task id, or what sending a task or a canvas gave back: then all its tasks are waited
        for, and what follows a failed one is not, because it never runs.
        Raises `TimeoutError` after `seconds`, which says how far each run of the missing task came.
        """
        if not isinstance(result, ResultBase | str):
            raise TypeError(f"result={result!r} is neither a task id nor what sending a canvas gave back")
        ids: list[str] = []
        deadline = time.monotonic() + seconds
        self._wait(app.AsyncResult(result) if isinstance(result, str) else result, ids, deadline)
        with self._changed:  # a quick worker's events may overtake that of the sender
            self._changed.wait_for(lambda: all(map(self._was_sent, ids)), SENT_SECONDS)
        return self._runs_with(ids)

    def text(self, width: int = 110, rows: int = MOST_ROWS) -> str:
        """Return the chart as text of `width` columns, with at most `rows` runs."""
        lost = f"\nThe connection to the broker was lost ({self.gaps}): events may be missing."
        return chart(self.runs, width, rows) + (lost if self.gaps else "")

    def svg(self, rows: int = MOST_ROWS) -> str:
        """Return the chart as an SVG image, with at most `rows` runs."""
        return svg_chart(self.runs, rows)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.text(), "image/svg+xml": self.svg()}

    # --- collecting ---

    def _collect(self) -> None:
        while not self._stop.is_set():
            connection = app.connection_for_read()
            try:
                with connection, connection.channel() as channel:
                    receiver = app.events.Receiver(channel, handlers={"*": self._on_event})
                    [consumer] = receiver.get_consumers(partial(Consumer, channel), channel)
                    with consumer:
                        self._receive(connection)
            except connection.connection_errors + connection.channel_errors:
                self.gaps += 1
                self._stop.wait(POLL_SECONDS)

    def _receive(self, connection: Connection) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):  # nothing came: look whether to stop
                connection.drain_events(timeout=POLL_SECONDS)

    def _wait_until_it_listens(self) -> None:
        """Send an event of our own until it arrives: what is sent before the first one arrives is lost."""
        deadline = time.monotonic() + START_SECONDS
        with broker_channel():
            while not self._listening.wait(0.02):
                if time.monotonic() > deadline:
                    raise OperationalError(f"No event arrived within {START_SECONDS:g} seconds")
                with app.events.default_dispatcher() as dispatcher:
                    dispatcher.send(PROBE, timeline=id(self))

    def _on_event(self, event: Event) -> None:
        if event["type"] == PROBE:
            if event["timeline"] == id(self):
                self._listening.set()
        elif event["type"].startswith("task-"):
            with self._changed:
                task_id, outcome = event["uuid"], _outcome(event)
                self._events[task_id].append(event)
                self._changed.notify_all()
                # A rejected message that goes back to the queue is not the end of its task.
                if outcome in FINAL and not event.get("requeue"):
                    self._ended[task_id] = self._ended.get(task_id, False) or outcome == "succeeded"

    # --- waiting ---

    def _wait(self, result: ResultBase, ids: list[str], deadline: float) -> bool:
        """Wait for all tasks of `result`, add their ids to `ids`, and return whether they succeeded."""
        for node in lineage(result):
            if isinstance(node, GroupResult):
                members = [self._wait(member, ids, deadline) for member in node.results or ()]
                succeeded = all(members)
            else:
                assert isinstance(node, AsyncResult)
                task_id = str(node.id)
                ids.append(task_id)
                with self._changed:
                    seconds = max(0, deadline - time.monotonic())
                    has_ended = self._changed.wait_for(partial(self._ended.__contains__, task_id), seconds)
                if not has_ended:
                    raise TimeoutError(self._seen_of(task_id))
                succeeded = self._ended[task_id]
            if not succeeded:
                return False
        return True

    def _runs_with(self, ids: Iterable[str]) -> list[Run]:
        with self._changed:
            return runs_of(event for task_id in ids for event in self._events.get(task_id, ()))

    def _was_sent(self, task_id: str) -> bool:
        return any(event["type"] == "task-sent" for event in self._events.get(task_id, ()))

    def _seen_of(self, task_id: str) -> str:
        state = app.AsyncResult(task_id).state
        text = f"Task {task_id} has not ended in time. The result backend says {state}. "
        if runs := self._runs_with([task_id]):
            seen = ", ".join(f"{run.outcome} ({run.worker or 'no worker has it'})" for run in runs)
            return f"{text}Its runs: {seen}."
        return f"{text}No event of it was seen. {NO_EVENTS}"


# --- from events to runs ----------------------------------------------------------------------------------


def runs_of(events: Iterable[Event]) -> list[Run]:
    """Put events together to runs, in the order in which they began.

    Events may be missing: a run then lacks that time, and what can be told from the others is filled in.
    """
    sent: dict[tuple[str, int], Event] = {}
    runs: dict[str, list[Run]] = defaultdict(list)
    for event in list(events):
        if event["type"] == "task-sent":  # its sender's event may arrive after those of the worker
            sent.setdefault((event["uuid"], event["retries"]), event)
        else:
            _add(runs[event["uuid"]], event)
    for (task_id, retries), event in sent.items():
        _add_sent(runs[task_id], event, retries)
    for same_task in runs.values():
        name = next((run.name for run in same_task if run.name), "?")
        same_task[:] = [replace(run, name=run.name or name) for run in same_task]
    return sorted((run for same_task in runs.values() for run in same_task), key=lambda run: run.times[0])


def _add(runs: list[Run], event: Event) -> None:
    """Add a worker's event to the runs of its task."""
    moment, outcome = event["timestamp"], _outcome(event)
    if outcome == "received":
        run = _new_run(runs, event, event["retries"])
        runs.append(replace(run, received=moment, outcome=outcome))
    elif outcome == "started":
        at = _open(runs, event, started=False)
        runs[at] = replace(runs[at], started=moment, outcome=outcome)
    elif outcome in ENDINGS:
        at = _open(runs, event, started=True)
        started = runs[at].started
        if started is None and event.get("runtime") is not None:
            started = moment - event["runtime"]
        detail = str(event.get("exception", ""))
        runs[at] = replace(runs[at], started=started, ended=moment, outcome=outcome, detail=detail)


def _open(runs: list[Run], event: Event, *, started: bool) -> int:
    """Return which of `runs` the event goes on with, by its worker. If there is none, begin one."""
    here = [at for at, run in enumerate(runs) if run.ended is None and run.worker == event["hostname"]]
    fitting = [at for at in here if (runs[at].started is not None) == started]
    if len(fitting) > 1 and event.get("runtime") is not None:  # one task runs twice at once here
        began = event["timestamp"] - event["runtime"]
        return min(fitting, key=lambda at: abs((runs[at].started or 0) - began))
    if fitting or (here and started):
        return (fitting or here)[0]
    runs.append(_new_run(runs, event, retries=sum(run.outcome == "retried" for run in runs)))
    return len(runs) - 1


def _new_run(runs: list[Run], event: Event, retries: int) -> Run:
    name = event.get(
        "name", ""
    )  # another name: the task has replaced itself by a canvas, and that has its id
    again = any(run.retries == retries and name in ("", run.name) for run in runs)
    return Run(event["uuid"], name, event["hostname"], retries, again)


def _add_sent(runs: list[Run], event: Event, retries: int) -> None:
    """Add the sender's event to the first run of that try. Without one, the message still waits."""
    run = Run(event["uuid"], event["name"], retries=retries, sent=event["timestamp"])
    for at, other in enumerate(runs):
        if other.retries == retries:
            # The sender tells of it after the message has gone: a worker may have been quicker.
            sent = min([event["timestamp"], *other.times])
            runs[at] = replace(other, name=other.name or run.name, sent=sent)
            return
    runs.append(run)


def _outcome(event: Event) -> str:
    return event["type"].removeprefix("task-")


def most_at_once(runs: Iterable[Run]) -> int:
    """Return how many of these runs went on at the same time, at most. Those without an end do not count."""
    spans = [(run.started, run.ended) for run in runs if run.started is not None and run.ended is not None]
    return max((sum(begin <= moment < end for begin, end in spans) for moment, _ in spans), default=0)


# --- from runs to charts ----------------------------------------------------------------------------------


def _choose(runs: Sequence[Run], rows: int) -> tuple[list[Run], list[Run]]:
    """Return the runs to draw, worker by worker, and the others.

    When there are too many, those that went wrong or came again are drawn first, then the longest.
    """
    if rows < 1:
        raise ValueError(f"rows={rows!r}: must be 1 or more")

    def interest(run: Run) -> tuple[bool, float]:
        return (run.again or run.outcome != "succeeded", run.times[-1] - run.times[0])

    ranked = sorted(runs, key=interest, reverse=True)
    return sorted(ranked[:rows], key=lambda run: (run.worker, run.times[0])), ranked[rows:]


def _label(run: Run) -> str:
    notes = [run.name.rpartition(".")[2], run.task_id[:8]]
    if run.retries:
        notes.append(f"retry {run.retries}")
    return " ".join([*notes, *(["again"] if run.again else [])])


def _spans(run: Run, end: float) -> list[tuple[str, float, float]]:
    """Return the parts of a run: the sign of each, and from when to when. `end` is the end of the chart."""
    steps = [(".", run.sent), (":", run.received), ("?" if run.ended is None else "=", run.started)]
    begins = [(sign, moment) for sign, moment in steps if moment is not None]
    ends = [*(moment for _, moment in begins[1:]), end if run.ended is None else run.ended]
    # Clocks of two machines may differ: no part ends before it begins.
    return [(sign, begin, max(begin, until)) for (sign, begin), until in zip(begins, ends, strict=False)]


def _bounds(runs: Sequence[Run]) -> tuple[float, float]:
    moments = [moment for run in runs for moment in run.times]
    return min(moments), max(moments)


def chart(runs: Sequence[Run], width: int = 110, rows: int = MOST_ROWS) -> str:
    """Draw runs as text of `width` columns, at most `rows` of them, and count all of them.

    Signs and letters are in `SIGNS`; the chart explains those that it uses.
    """
    if not runs:
        return f"No task event was seen. {NO_EVENTS}"
    shown, others = _choose(runs, rows)
    begin, end = _bounds(runs)
    labels = min(max(len(_label(run)) for run in shown), width // 3)
    columns = max(10, width - labels - 14)
    lines = [f"{'':{labels}}   0 s{f'{end - begin:.2f} s':>{columns - 3}}"]
    worker = None
    for run in shown:
        if run.worker != worker:
            worker = run.worker
            lines.append(worker or "no worker yet")
        lasted = "" if run.ran is None else f"{run.ran:.3f} s"
        lines.append(
            f"  {_label(run)[:labels]:{labels}} |{_bar(run, begin, end, columns)}| {lasted}".rstrip()
        )
    bars = "".join(line.partition("|")[2].rpartition("|")[0] for line in lines)
    lines.append("  ".join(f"{sign} {meaning}" for sign, meaning in SIGNS.items() if sign in bars))
    lines.append(_counts(runs))
    if others:
        ran = [run.ran for run in others if run.ran is not None]
        median = f" Their median: {statistics.median(ran):.3f} s." if ran else ""
        lines.append(f"Not drawn: {len(others)} of these runs.{median}")
    return "\n".join(lines)


def _bar(run: Run, begin: float, end: float, columns: int) -> str:
    scale = (columns - 1) / max(end - begin, 1e-6)
    bar = [" "] * columns
    for sign, since, until in _spans(run, end):
        first, last = round((since - begin) * scale), round((until - begin) * scale)
        bar[first : last + 1] = sign * (last + 1 - first)
    if run.again:
        bar[round((run.times[0] - begin) * scale)] = "D"
    if run.ended is not None:
        bar[round((run.ended - begin) * scale)] = ENDINGS[run.outcome][0]
    return "".join(bar)


def _counts(runs: Sequence[Run]) -> str:
    counts = Counter("started, no end seen" if run.outcome == "started" else run.outcome for run in runs)
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    again = sum(run.again for run in runs)
    tasks = len({run.task_id for run in runs})
    return f"Runs {len(runs)}, tasks {tasks}: {told}" + (f"; {again} delivered again." if again else ".")


def svg_chart(runs: Sequence[Run], rows: int = MOST_ROWS) -> str:
    """Draw runs as an SVG image, at most `rows` of them, and count all of them."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shown, others = _choose(runs, rows)
    figure = Figure(figsize=(10, 1.2 + 0.25 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    if shown:
        _draw_rows(axes, shown, *_bounds(runs))
        title = _counts(runs) + (f" Not drawn: {len(others)}." if others else "")
    else:
        title = "No task event was seen."
    axes.set_title(title, loc="left", fontsize="medium")
    letters = [f"{sign} {meaning}" for sign, meaning in SIGNS.items() if sign.isalpha()]
    axes.set_xlabel("seconds (" + ", ".join(letters) + ")", fontsize="small")
    patches = [Patch(label=SIGNS[sign], **style) for sign, style in FILLS.items()]
    figure.legend(handles=patches, loc="outside lower left", ncols=len(patches), fontsize="small")
    image = io.StringIO()
    # Text stays text: it can be searched, copied and read aloud.
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(image, format="svg")
    return image.getvalue()


def _draw_rows(axes: "Axes", shown: Sequence[Run], begin: float, end: float) -> None:
    for row, run in enumerate(shown):
        for sign, since, until in _spans(run, end):
            axes.barh(row, until - since, left=since - begin, height=0.7, **FILLS[sign])
        # The letter beside the bar says how it ended, also without colour.
        letters = ("D" if run.again else "") + ENDINGS.get(run.outcome, ("?", ""))[0]
        axes.text(run.times[-1] - begin, row, f" {letters}", va="center", fontsize="small")
    axes.set_yticks(range(len(shown)), [f"{_label(run)} · {run.worker or 'no worker'}" for run in shown])
    axes.tick_params(axis="y", labelsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.04)
