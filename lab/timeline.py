"""Who ran what, and when: collected from the events that workers send, and drawn as a chart.

    with Timeline() as timeline:
        result = add.delay(4, 5)
        timeline.wait_for(result)
    timeline                          # in a notebook: a picture
    print(timeline.text())            # the same as text
    timeline.runs                     # the same as data

A retry and a redelivery are runs of their own: the same task id comes again.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Self

from celery.result import ResultBase
from celery.signals import before_task_publish
from kombu import Connection, Consumer
from kombu.exceptions import OperationalError

from broker import broker_channel
from celery_app import app, broker_trouble
from lab import console, markup
from lab.canvas import last_ids, planned_ids, task_ids
from lab.chart import MOST_ROWS, NO_EVENTS, chart, svg_chart
from lab.runs import FINAL, Event, Run, is_readable, outcome_of, runs_of

START_SECONDS = 5.0
POLL_SECONDS = 0.1
PROBE_SECONDS = 0.02
PROBE = "timeline-probe"
# A clock that differs by more is a wrong clock. A smaller difference may be an event that came late.
CLOCK_SECONDS = 600.0
# What kombu raises for something on the wire that is no event.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError)


class Timeline:
    """Collects the events of all tasks while its `with` block lasts. It may be read during and after.

    Raises `OperationalError` if the broker does not answer, or takes no listener because it is full.
    """

    def __init__(self) -> None:
        self.gaps = 0  # how often the connection was lost: events may be missing
        self.unreadable = 0  # how many events were not understood
        self.wrong_clocks: set[str] = set()  # of these workers, the times are those of arrival
        self._events: dict[str, list[Event]] = defaultdict(list)  # by task id
        self._related: dict[str, set[str]] = defaultdict(set)  # by task id: its sender, and what it has sent
        self._ended: dict[str, bool] = {}  # by task id: whether it succeeded
        self._probe = 0  # the number of the last probe that was sent
        self._heard = 0  # the number of the last probe that has arrived
        self._trouble: BaseException | None = None  # why the connection was lost
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._collect, name="timeline", daemon=True)

    def __enter__(self) -> Self:
        before_task_publish.connect(self._on_publish)
        self._thread.start()
        try:
            self._catch_up()  # what is sent before it listens is lost
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._thread.join()

    def _end(self) -> None:
        self._stop.set()
        before_task_publish.disconnect(self._on_publish)

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
        """Wait until a task or a canvas has ended, and return its runs.

        `result` is a task id, or what sending a task or a canvas gave back. Then all its tasks are waited
        for: those that `result` knows, and all that were sent by one of them, such as callbacks. What
        follows a failed task is not waited for, because it never runs.
        Raises `TimeoutError` after `seconds`, which says how far each run of the missing task came, and
        `OperationalError` if the broker does not answer, or no event arrives at all.
        """
        if not isinstance(result, ResultBase | str):
            raise TypeError(f"result={result!r} is neither a task id nor what sending a canvas gave back")
        deadline = time.monotonic() + seconds
        self._catch_up()
        if isinstance(result, str):
            self._wait_until_ended([result], deadline)
            return self._runs_of([result])
        return self._runs_of(self._wait_for_all(task_ids(result), last_ids(result), deadline))

    def text(self, width: int = 110, rows: int = MOST_ROWS) -> str:
        """Return the chart as text of `width` columns, with at most `rows` runs."""
        return "\n".join([chart(self.runs, width, rows), *self._notes()])

    def html(self, rows: int = MOST_ROWS) -> str:
        """Return the chart as HTML for a notebook, with at most `rows` runs."""
        return markup.timeline(self.runs, rows, notes=self._notes())

    def svg(self, rows: int = MOST_ROWS) -> str:
        """Return the chart as an SVG image, with at most `rows` runs."""
        return svg_chart(self.runs, rows)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.text(), "text/html": self.html()}

    def _notes(self) -> list[str]:
        """Say what the chart cannot show."""
        notes = []
        if self.gaps:
            notes.append(f"The connection to the broker was lost ({self.gaps}): events may be missing.")
        if self.unreadable:
            notes.append(f"{self.unreadable} events of other programs were not understood.")
        if self.wrong_clocks:
            names = console.printable(", ".join(sorted(self.wrong_clocks)))
            notes.append(f"The clock of {names} is wrong: its times are those of arrival here.")
        return notes

    # --- collecting ---

    def _collect(self) -> None:
        while not self._stop.is_set():
            connection = app.connection_for_read()
            try:
                with connection, connection.channel() as channel, self._consumer(channel):
                    self._receive(connection)
            except connection.connection_errors + connection.channel_errors as error:
                self.gaps += 1
                self._trouble = error
                self._stop.wait(POLL_SECONDS)

    def _consumer(self, channel: Any) -> Consumer:
        receiver = app.events.Receiver(channel)
        return Consumer(
            channel,
            queues=[receiver.queue],
            callbacks=[self._on_message],
            on_decode_error=self._on_unreadable,
            accept=["json"],
            no_ack=True,
        )

    def _receive(self, connection: Connection) -> None:
        while not self._stop.is_set():
            try:
                connection.drain_events(timeout=POLL_SECONDS)
            except TimeoutError:
                continue  # nothing came: look whether to stop
            except UNREADABLE as error:
                self._on_unreadable(None, error)

    def _on_unreadable(self, _message: Any, _error: Exception) -> None:
        self.unreadable += 1

    def _on_message(self, body: Any, _message: Any) -> None:
        """Take the events of a message: a worker sends several at once."""
        with self._changed:
            for event in body if isinstance(body, list) else [body]:
                self._on_event(event)
            self._changed.notify_all()

    def _on_event(self, event: Any) -> None:
        match event:
            case {"type": type_, "timeline": sender, "number": int(number)} if type_ == PROBE:
                if sender == id(self):
                    self._heard = max(self._heard, number)
            case {"type": str(kind)} if not kind.startswith("task-"):
                pass  # of a worker, or of a kind that somebody has made up
            case _ if is_readable(event):
                self._add(event)
            case _:
                self.unreadable += 1

    def _add(self, event: Event) -> None:
        event["local_received"] = time.time()
        if abs(event["timestamp"] - event["local_received"]) > CLOCK_SECONDS:
            self.wrong_clocks.add(str(event.get("hostname")))
            event["timestamp"] = event["local_received"]
        task_id, outcome = event["uuid"], outcome_of(event)
        self._events[task_id].append(event)
        self._relate(task_id, [event.get("parent_id"), event.get("root_id")])
        # A rejected message that goes back to the queue is not the end of its task.
        if outcome in FINAL and not event.get("requeue"):
            self._ended[task_id] = self._ended.get(task_id, False) or outcome == "succeeded"

    def _on_publish(self, body: Any, headers: dict[str, Any], **_: Any) -> None:
        """Note what is to follow a task that this program sends: its message says so, and no event does."""
        with self._changed:
            self._relate(headers.get("id"), planned_ids(body))

    def _relate(self, task_id: Any, others: Iterable[Any]) -> None:
        for other in others:
            if isinstance(task_id, str) and isinstance(other, str):
                self._related[task_id].add(other)
                self._related[other].add(task_id)

    # --- waiting ---

    def _catch_up(self) -> None:
        """Wait until all events are here that were sent before: a probe of our own comes after them."""
        self._probe += 1
        deadline = time.monotonic() + START_SECONDS
        with broker_channel() as channel:
            dispatcher = app.events.Dispatcher(channel=channel)
            while not self._has_heard(self._probe):
                if self._trouble and not self._heard:  # it cannot even begin
                    raise OperationalError(broker_trouble(self._trouble))
                if time.monotonic() > deadline:
                    raise OperationalError(f"No event arrived within {START_SECONDS:g} seconds")
                dispatcher.send(PROBE, timeline=id(self), number=self._probe)

    def _has_heard(self, number: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._heard >= number, PROBE_SECONDS)

    def _wait_for_all(self, ids: list[str], last: list[str], deadline: float) -> list[str]:
        """Wait for all tasks that are related to `ids`, and return their ids.

        A task's end is told after all that it has sent. So when all that were seen have ended, nothing
        more comes; except the `last` tasks, if their workers tell of what they send only when it arrives.
        """
        while True:
            related = self._all_related(ids)
            succeeded = self._wait_until_ended(related, deadline)
            if self._all_related(ids) != related:  # they have sent others
                continue
            missing = [task_id for task_id in last if task_id not in related]
            if not missing or not succeeded:
                return related
            self._wait(missing[0], self._events.__contains__, deadline)

    def _all_related(self, ids: Iterable[str]) -> list[str]:
        """Return the tasks that were seen and are related to `ids`, in the order in which they were seen."""
        with self._changed:
            found: set[str] = set()
            new = set(ids)
            while new:
                found |= new
                new = {other for task_id in new for other in self._related.get(task_id, ())} - found
            return [task_id for task_id in self._events if task_id in found]

    def _wait_until_ended(self, ids: Iterable[str], deadline: float) -> bool:
        """Wait for the end of all, and return whether all have succeeded."""
        succeeded = [self._wait(task_id, self._ended.__contains__, deadline) for task_id in ids]
        return all(succeeded)

    def _wait(self, task_id: str, happened: Callable[[str], bool], deadline: float) -> bool:
        """Wait until something has happened to a task. Return whether the task has succeeded."""
        with self._changed:
            seconds = max(0, deadline - time.monotonic())
            if self._changed.wait_for(lambda: happened(task_id), seconds):
                return self._ended.get(task_id, False)
        raise TimeoutError(self._seen_of(task_id))

    def _runs_of(self, ids: Iterable[str]) -> list[Run]:
        with self._changed:
            return runs_of(event for task_id in ids for event in self._events.get(task_id, ()))

    def _seen_of(self, task_id: str) -> str:
        state = app.AsyncResult(task_id).state
        text = f"Task {task_id} has not ended in time. The result backend says {state}. "
        if runs := self._runs_of([task_id]):
            seen = ", ".join(f"{run.outcome} ({run.worker or 'no worker has it'})" for run in runs)
            return f"{text}Its runs: {seen}."
        return f"{text}No event of it was seen. {NO_EVENTS}"
