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
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Any, Self

from celery.result import AsyncResult, GroupResult, ResultBase
from kombu import Connection, Consumer
from kombu.exceptions import OperationalError

from broker import broker_channel
from celery_app import app
from lab.chart import MOST_ROWS, NO_EVENTS, chart, svg_chart
from lab.diagram import lineage
from lab.runs import FINAL, Event, Run, outcome_of, runs_of

START_SECONDS = 5.0
POLL_SECONDS = 0.1
SENT_SECONDS = 0.1
PROBE = "timeline-probe"


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
                task_id, outcome = event["uuid"], outcome_of(event)
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
