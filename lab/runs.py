"""Runs of tasks, put together from the events that senders and workers sent. Charts are in chart.py.

Events may be missing, may come twice or in another order, and may be of a program that writes them in a way
of its own. Nothing of that stops a view: what an event does not say is left open.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

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
UNNAMED = "?"  # a task or a worker whose name no event tells

Event = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run of a task: one delivery to a worker, up to its end. Times are seconds since 1970.

    `retries` is 0 in the first run. `redelivered` means that the same message was delivered before.
    `outcome` is a key of `ENDINGS`, or how far it was seen to come: sent, received or started.
    `detail` is the text of the error. `parent_id` is the task that has sent this one: empty if a program has.
    `args` and `kwargs` are the arguments as text. A time is None if it has not come, or if its event was
    lost. `ended` is when the worker's main process heard of the end: the next task of a chain may have
    started by then.
    """

    task_id: str
    name: str = ""
    worker: str = ""
    retries: int = 0
    redelivered: bool = False
    sent: float | None = None
    received: float | None = None
    started: float | None = None
    ended: float | None = None
    outcome: str = "sent"
    detail: str = ""
    parent_id: str = ""
    args: str = ""
    kwargs: str = ""

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

    @property
    def call(self) -> str:
        """The task with its arguments, about as one would type it: `add(1, 2)`."""
        inside = (self.args[1:-1].rstrip(", "), self.kwargs[1:-1])
        return f"{self.name.rpartition('.')[2]}({', '.join(filter(None, inside))})"


def runs_of(events: Iterable[Event]) -> list[Run]:
    """Put events together to runs, in the order in which they began.

    What is missing is filled in where the others tell it. Events that are not readable are left out.
    """
    facts = [_fact(event) for event in events if is_readable(event)]
    sent: dict[tuple[str, int], _Fact] = {}
    runs: dict[str, list[Run]] = defaultdict(list)
    for fact in facts:
        if fact.outcome == "sent":  # its sender's event may arrive after those of the worker
            sent.setdefault((fact.task_id, fact.retries or 0), fact)
        else:
            _add(runs[fact.task_id], fact)
    for (task_id, retries), fact in sent.items():
        _add_sent(runs[task_id], fact, retries)
    for same_task in runs.values():
        _fill_in(same_task)
    return sorted((run for same_task in runs.values() for run in same_task), key=lambda run: run.times[0])


def is_readable(event: Any) -> bool:
    """Tell whether an event is about a task, and says which one and when."""
    match event:
        case {"type": str(kind), "uuid": str(), "timestamp": moment}:
            return kind.startswith("task-") and _is_number(moment)
    return False


def _is_number(value: Any) -> bool:
    """Tell whether it is a number that one can reckon with: neither NaN nor beyond every clock."""
    return isinstance(value, int | float) and abs(value) < 1e15


def outcome_of(event: Event) -> str:
    """Return what an event says of its task: sent, received, started, or a key of `ENDINGS`."""
    return str(event["type"]).removeprefix("task-")


# --- from events to runs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fact:
    """What one event says. What it does not say is empty or None."""

    task_id: str
    outcome: str
    moment: float
    name: str
    worker: str
    retries: int | None
    runtime: float | None
    detail: str
    parent_id: str
    args: str
    kwargs: str


def _fact(event: Event) -> _Fact:
    def text(field: str) -> str:
        return str(event.get(field) or "")

    retries, runtime = event.get("retries"), event.get("runtime")
    return _Fact(
        task_id=event["uuid"],
        outcome=outcome_of(event),
        moment=float(event["timestamp"]),
        name=text("name"),
        worker=text("hostname") or UNNAMED,
        retries=retries if isinstance(retries, int) else None,
        runtime=float(runtime) if runtime is not None and _is_number(runtime) else None,
        detail=text("exception"),
        parent_id=text("parent_id"),
        args=text("args"),
        kwargs=text("kwargs"),
    )


def _add(runs: list[Run], fact: _Fact) -> None:
    """Add what a worker says to the runs of its task. Of kinds that it makes up itself, nothing is known."""
    if fact.outcome == "received":
        runs.append(replace(_new_run(runs, fact), received=fact.moment, outcome="received"))
    elif fact.outcome == "started":
        at = _open(runs, fact, started=False)
        runs[at] = replace(runs[at], started=fact.moment, outcome="started")
    elif fact.outcome in ENDINGS:
        at = _open(runs, fact, started=True)
        started = runs[at].started
        if started is None and fact.runtime is not None:
            started = fact.moment - fact.runtime
        runs[at] = replace(
            runs[at], started=started, ended=fact.moment, outcome=fact.outcome, detail=fact.detail
        )


def _open(runs: list[Run], fact: _Fact, *, started: bool) -> int:
    """Return which of `runs` the event goes on with, by its worker. If there is none, begin one."""
    here = [at for at, run in enumerate(runs) if run.ended is None and run.worker == fact.worker]
    fitting = [at for at in here if (runs[at].started is not None) == started]
    if len(fitting) > 1 and fact.runtime is not None:  # one task runs twice at once here
        began = fact.moment - fact.runtime
        return min(fitting, key=lambda at: abs((runs[at].started or 0) - began))
    if fitting or (here and started):
        return (fitting or here)[0]
    runs.append(_new_run(runs, fact))
    return len(runs) - 1


def _new_run(runs: list[Run], fact: _Fact) -> Run:
    retries = fact.retries
    if retries is None:
        retries = sum(run.outcome == "retried" for run in runs)
    # Another name: the task has replaced itself by a canvas, and that has its id.
    redelivered = any(run.retries == retries and fact.name in ("", run.name) for run in runs)
    return Run(
        fact.task_id,
        fact.name,
        fact.worker,
        retries,
        redelivered,
        parent_id=fact.parent_id,
        args=fact.args,
        kwargs=fact.kwargs,
    )


def _add_sent(runs: list[Run], fact: _Fact, retries: int) -> None:
    """Add the sender's event to the first run of that try. Without one, the message still waits."""
    for at, run in enumerate(runs):
        if run.retries == retries:
            # The sender tells of it after the message has gone: a worker may have been quicker.
            runs[at] = _filled(replace(run, sent=min([fact.moment, *run.times])), fact)
            return
    runs.append(replace(_new_run([], fact), worker="", retries=retries, sent=fact.moment))


def _fill_in(runs: list[Run]) -> None:
    """Give all runs of one task what only some of their events told."""
    for run in list(runs):
        runs[:] = [_filled(other, run) for other in runs]
    runs[:] = [replace(run, name=run.name or UNNAMED) for run in runs]


def _filled(run: Run, other: "Run | _Fact") -> Run:
    """Return `run` with what it lacks and `other` tells of the same task."""
    return replace(
        run,
        name=run.name or other.name,
        parent_id=run.parent_id or other.parent_id,
        args=run.args or other.args,
        kwargs=run.kwargs or other.kwargs,
    )
