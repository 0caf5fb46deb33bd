"""What happened to tasks, counted from the events that workers send while this program listens.

    with TaskEvents() as events:
        ...
        events.snapshot().counts["tasks.basic_tasks.add", "succeeded"]

A counter inside a task would count in a pool child, where nobody reads it. Events reach every listener. What
happens while nobody listens is not counted: all numbers are since `since`, and `gaps` says how often the
connection was lost. The fast profile sends no events.
"""

import copy
import threading
import time
from bisect import bisect_left
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, Self

from celery.events.receiver import EventReceiver
from kombu.exceptions import OperationalError

from celery_app import QUEUES, app

MOST_TASKS = 10_000  # tasks whose name and queue are remembered until they end
RECENT_SECONDS = 300.0  # what the key metrics look back at
MOST_RECENT = 10_000
ALIVE_SECONDS = 10.0  # a worker sends a heartbeat every 2 seconds
PAUSE_SECONDS = 1.0  # between two tries to connect
# What a broken event raises: anybody who can write to the broker can send one.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError)

# Upper ends in seconds: from a task that does nothing to the time limit of celery_app.py.
BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
COUNTED = ("sent", "received", "started", "succeeded", "failed", "retried", "revoked", "rejected")
UNKNOWN = "(unknown)"


@dataclass
class Durations:
    """How long something took: how many in each bucket (the last is above all ends), and the sum in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


@dataclass
class Snapshot:
    """All numbers as of one moment.

    `counts`: by task and what happened. `runtimes`: by task. `waits`: by queue, from sent to started; those
    with a countdown or an ETA, such as retries, are left out. `recent_*`: of the last five minutes.
    """

    since: float = field(default_factory=time.time)
    is_connected: bool = False
    gaps: int = 0
    unreadable: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    runtimes: dict[str, Durations] = field(default_factory=lambda: defaultdict(Durations))
    waits: dict[str, Durations] = field(default_factory=lambda: defaultdict(Durations))
    recent_waits: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=MOST_RECENT))
    recent_ends: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=MOST_RECENT))
    heard: dict[str, float] = field(default_factory=dict)  # when each worker was heard last

    @property
    def workers(self) -> list[str]:
        """The workers that were heard in the last seconds."""
        return sorted(name for name, at in self.heard.items() if time.time() - at < ALIVE_SECONDS)


@dataclass
class _Seen:
    """What earlier events have said of a task: later ones have its id only."""

    name: str = UNKNOWN
    queue: str = UNKNOWN
    sent: float | None = None
    is_delayed: bool = False


class TaskEvents:
    """Listens to the events of all tasks and workers, in a thread, until it is stopped.

    A connection that is lost is made again. Nothing that arrives ends the thread.
    """

    def __init__(self) -> None:
        app.loader.import_default_modules()
        self._numbers = Snapshot()
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._lock = threading.Lock()
        self._listens = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._collect, name="task events", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        self._listens.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start to listen, and do not wait for the broker."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. It may take a second."""
        self._stop.set()
        self._thread.join()

    def snapshot(self) -> Snapshot:
        """Return a copy of all numbers."""
        with self._lock:
            oldest = time.time() - RECENT_SECONDS
            for recent in (self._numbers.recent_waits, self._numbers.recent_ends):
                while recent and recent[0][0] < oldest:
                    recent.popleft()  # type: ignore[attr-defined]
            return copy.deepcopy(self._numbers)

    # --- listening ---

    def _collect(self) -> None:
        while not self._stop.is_set():
            with app.connection_for_read() as connection:
                try:
                    _Receiver(connection, self).capture(limit=None)
                except (*connection.connection_errors, *connection.channel_errors, OperationalError):
                    self._lost()
            self._stop.wait(PAUSE_SECONDS)

    def _lost(self) -> None:
        with self._lock:
            self._numbers.gaps += self._numbers.is_connected
            self._numbers.is_connected = False

    def connected(self) -> None:
        """Note that events arrive from now on."""
        with self._lock:
            self._numbers.is_connected = True
        self._listens.set()

    def unreadable(self) -> None:
        """Note an event that is none of Celery's."""
        with self._lock:
            self._numbers.unreadable += 1

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to end."""
        return self._stop.is_set()

    # --- counting ---

    def count(self, event: dict[str, Any]) -> None:
        """Count one event. Raises one of `UNREADABLE` if it is none of Celery's."""
        kind, _, what = event["type"].partition("-")
        with self._lock:
            if kind == "worker":
                self._count_worker(str(event["hostname"]), what)
            elif kind == "task" and what in COUNTED:
                self._count_task(event, what)

    def _count_worker(self, name: str, what: str) -> None:
        for old in [old for old, at in self._numbers.heard.items() if time.time() - at > RECENT_SECONDS]:
            del self._numbers.heard[old]
        if what == "offline":
            self._numbers.heard.pop(name, None)
        else:
            self._numbers.heard[name] = time.time()

    def _count_task(self, event: dict[str, Any], what: str) -> None:
        task, at = self._learn_from(event), float(event["timestamp"])
        self._numbers.counts[task.name, what] += 1
        if what == "started" and task.sent is not None and not task.is_delayed:
            wait = max(0.0, at - task.sent)  # two clocks: that of the sender, and that of the worker
            self._numbers.waits[task.queue].add(wait)
            self._numbers.recent_waits.append((time.time(), wait))
        if what in ("succeeded", "failed"):
            self._numbers.recent_ends.append((time.time(), what == "succeeded"))
            if event.get("runtime") is not None:
                self._numbers.runtimes[task.name].add(float(event["runtime"]))
            del self._seen[event["uuid"]]

    def _learn_from(self, event: dict[str, Any]) -> _Seen:
        task = self._seen.setdefault(str(event["uuid"]), _Seen())
        if event.get("name") in app.tasks:  # a name that nobody has would be a series of its own for ever
            task.name = event["name"]
        if event["type"] == "task-sent":
            task.sent = float(event["timestamp"])
            if event.get("queue") in QUEUES:
                task.queue = event["queue"]
        task.is_delayed = task.is_delayed or bool(event.get("eta"))
        while len(self._seen) > MOST_TASKS:
            self._seen.popitem(last=False)
        return task


class _Receiver(EventReceiver):
    """Celery's receiver of events, which hands them to a `TaskEvents` and ends with it."""

    def __init__(self, connection: Any, owner: TaskEvents) -> None:
        super().__init__(connection, handlers={"*": owner.count}, app=app)
        self._owner = owner

    @property
    def should_stop(self) -> bool:
        """Whether to end. kombu asks about once a second."""
        return self._owner.is_stopped

    def on_consume_ready(self, *arguments: Any, **options: Any) -> None:
        """Tell the owner, and ask workers for a heartbeat."""
        super().on_consume_ready(*arguments, **options)
        self._owner.connected()

    def _receive(self, *arguments: Any, **options: Any) -> None:
        try:
            super()._receive(*arguments, **options)
        except UNREADABLE:
            self._owner.unreadable()
