"""Runs of tasks, put together from the events that senders and workers sent. Charts are in chart.py."""

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

Event = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run of a task: one delivery to a worker, up to its end. Times are seconds since 1970.

    `retries` is 0 in the first run. `redelivered` means that the same message was delivered before.
    `outcome` is a key of `ENDINGS`, or how far it was seen to come: sent, received or started.
    `detail` is the text of the error. A time is None if it has not come, or if its event was lost. `ended` is
    when the worker's main process heard of the end: the next task of a chain may have started by then.
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
    moment, outcome = event["timestamp"], outcome_of(event)
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
    redelivered = any(run.retries == retries and name in ("", run.name) for run in runs)
    return Run(event["uuid"], name, event["hostname"], retries, redelivered)


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


def outcome_of(event: Event) -> str:
    """Return what an event says of its task: sent, received, started, or a key of `ENDINGS`."""
    return event["type"].removeprefix("task-")
