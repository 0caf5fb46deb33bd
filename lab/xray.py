"""Look into the broker: what waits, what workers hold unacknowledged, what is bound, which results are kept.

    xray("basic")                     # in a notebook: tables
    print(xray("basic").text())       # the same as text
    xray("basic").messages[0]         # one message, opened

It only reads, and it reads only what it shows: a queue of 100,000 messages is as quick as one of ten.
"""

import itertools
import json
from collections.abc import Iterator, Sequence, Sized
from dataclasses import asdict, dataclass, replace
from typing import Any

from kombu.exceptions import OperationalError
from rich import box
from rich.console import Group, RenderableType
from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

import broker
from broker import broker_channel, check_queue, waiting_by_priority
from celery_app import QUEUES, app, broker_trouble
from lab import console

WIDTH = 110
MOST_UNACKNOWLEDGED = 1000  # how many unacknowledged messages are looked at to find those of one queue
INSPECT_SECONDS = 0.5
BINDINGS = "_kombu.binding."
RESULTS = "celery-task-meta-"


class _Readable(JupyterMixin):
    """Something with a rich view: tables in a notebook and in a terminal, and the same as text."""

    def __rich__(self) -> RenderableType:
        raise NotImplementedError

    def text(self) -> str:
        """Return the view as plain text."""
        return console.as_text(self.__rich__(), WIDTH)


@dataclass(frozen=True)
class Message(_Readable, broker.Message):
    """One message, and a view of its parts."""

    def __rich__(self) -> RenderableType:
        table = Table("part", "field", "value", title=f"A message of queue {self.queue}", box=box.SIMPLE_HEAD)
        body = {"args": list(self.args), "kwargs": self.kwargs, "embed": self.embed}
        parts: dict[str, dict[str, Any]] = {
            "headers": self.headers,
            "properties": {"content_type": self.content_type, **self.properties},
            "body": {"problem": self.problem} if self.problem else body,
        }
        for part, fields in parts.items():
            for number, (name, value) in enumerate(fields.items()):
                table.add_row(part if number == 0 else "", name, Text(json.dumps(value, default=repr)))
        return table


@dataclass(frozen=True)
class Unacknowledged:
    """A message that a worker has taken and not acknowledged, and for how long, in seconds.

    `state` is what the worker says of it: active (it runs), reserved (it waits for a free slot) or scheduled
    (it waits for its time). Where no worker answers for it, `worker` is empty, and it says so.
    """

    message: Message
    age: float
    worker: str = ""
    state: str = "no answer"


@dataclass(frozen=True)
class Delayed:
    """A task with a countdown or an ETA that a worker keeps in its memory until then."""

    worker: str
    task: str
    id: str
    eta: str


@dataclass(frozen=True)
class StoredResult:
    """What the result backend keeps of one task, and for how many seconds more (None: for ever)."""

    id: str
    task: str | None
    state: str
    value: Any
    expires: float | None


@dataclass(frozen=True)
class Binding:
    """A queue that gets the messages of an exchange with this routing key."""

    exchange: str
    routing_key: str
    queue: str


@dataclass(frozen=True)
class XRay(_Readable):
    """What the broker and the result backend hold at this moment.

    `waiting` maps each queue to the lengths of its priority lists. The tuples hold at most `limit` entries
    (`messages` for each queue, the one served next first; `unacknowledged` the oldest first). The totals
    count all. `results_total` counts every key of the result database, also those of groups and chords.
    """

    queue: str | None
    limit: int
    waiting: dict[str, dict[int, int]]
    messages: tuple[Message, ...]
    unacknowledged: tuple[Unacknowledged, ...]
    unacknowledged_total: int
    delayed: tuple[Delayed, ...]
    delayed_total: int
    results: tuple[StoredResult, ...]
    results_total: int
    bindings: tuple[Binding, ...]

    def as_json(self) -> str:
        """Return all of it as JSON."""
        return json.dumps(asdict(self), indent=2, default=repr)

    def __rich__(self) -> RenderableType:
        opened = self.messages[:1] if self.queue else ()
        return Group(*self._tables(), *opened)

    def _tables(self) -> Iterator[RenderableType]:
        queues = _table("Queues", "queue", "waiting", "by priority (0 is served first)")
        for queue, lengths in self.waiting.items():
            parts = ", ".join(f"p{priority}: {length}" for priority, length in lengths.items())
            queues.add_row(queue, str(sum(lengths.values())), parts)
        yield queues
        waiting = sum(sum(lengths.values()) for lengths in self.waiting.values())
        lists = [(message, f"p{message.priority}") for message in self.messages]
        yield from _messages("Waiting, the next first", ["list"], lists, waiting)
        ages = [(taken.message, f"{taken.age:.1f} s", taken.state) for taken in self.unacknowledged]
        yield from _messages(
            "Unacknowledged, in all queues", ["age", "state"], ages, self.unacknowledged_total
        )
        if self.delayed:
            title = _titled("Delayed in the memory of workers", self.delayed, self.delayed_total)
            table = _table(title, "worker", "task", "id", "not before")
            for task in self.delayed:
                table.add_row(task.worker, _short(task.task), task.id, task.eta)
            yield table
        if self.results:
            title = _titled("Keys of the result database", self.results, self.results_total)
            table = _table(title, "expires in", "task", "id", "state", "value")
            for result in self.results:
                left = "never" if result.expires is None else f"{result.expires:.0f} s"
                table.add_row(left, _short(result.task), result.id, result.state, _cut(repr(result.value)))
            yield table
        if self.bindings:
            table = _table("Bindings", "exchange", "routing key", "queue")
            for binding in self.bindings:
                table.add_row(binding.exchange, binding.routing_key, binding.queue)
            yield table


def xray(queue: str | None = None, limit: int = 10) -> XRay:
    """Look at `queue`, or at all queues, and at what workers and the result backend hold.

    At most `limit` entries of each kind are read. It changes no message and takes none.
    Raises `ValueError` for an unknown queue, a limit below 1 or a broker that is not Redis, and
    `OperationalError` if the broker does not answer.
    """
    if limit < 1:
        raise ValueError(f"limit={limit!r}: must be 1 or more")
    if queue is not None:
        check_queue(queue)
    queues = [queue] if queue else QUEUES
    with broker_channel() as channel:
        if not hasattr(channel, "unacked_key"):
            raise ValueError(f"X-ray reads Redis. The broker is {channel.connection.transport.driver_type}.")
        waiting = {name: waiting_by_priority(channel, name) for name in queues}
        messages = [
            _viewed(message)
            for name in queues
            for message in broker.next_messages(channel, name, waiting[name], limit)
        ]
        total = broker.unacknowledged_total(channel)
        found = (
            Unacknowledged(_viewed(message), age)
            for message, age in broker.unacknowledged(channel, MOST_UNACKNOWLEDGED)
            if queue in (None, message.queue)
        )
        taken = tuple(itertools.islice(found, limit))
        bindings = tuple(sorted(_bindings(channel, queue), key=lambda binding: binding.exchange))
        workers = channel.client.scard(f"{BINDINGS}celery.pidbox")
    # What a worker has in its memory is unacknowledged: without any, no worker need be asked.
    delayed, taken = _ask_workers(workers, taken) if total else ([], taken)
    results, results_total = _results(limit)
    return XRay(
        queue=queue,
        limit=limit,
        waiting=waiting,
        messages=tuple(messages),
        unacknowledged=taken,
        unacknowledged_total=total,
        delayed=tuple(delayed[:limit]),
        delayed_total=len(delayed),
        results=results,
        results_total=results_total,
        bindings=bindings,
    )


# --- reading ----------------------------------------------------------------------------------------------


def _viewed(message: broker.Message) -> Message:
    return Message(**vars(message))


def _bindings(channel: Any, queue: str | None) -> Iterator[Binding]:
    for key in channel.client.scan_iter(f"{BINDINGS}*", count=1000):
        for member in channel.client.smembers(key):
            # Pattern, the middle one, is for exchanges with wildcards.
            routing_key, _, bound = member.decode().split(channel.sep)
            if queue in (None, bound):
                yield Binding(key.decode().removeprefix(BINDINGS), routing_key, bound)


def _ask_workers(
    workers: int, taken: tuple[Unacknowledged, ...]
) -> tuple[list[Delayed], tuple[Unacknowledged, ...]]:
    """Return all delayed tasks, and `taken` with what the workers say of each.

    `workers` is how many are known: when all have answered, it waits no longer.
    """
    inspect = app.control.inspect(timeout=INSPECT_SECONDS, limit=workers)
    scheduled = inspect.scheduled()
    if not scheduled:  # no worker answers: it would not answer a second time
        return [], taken
    delayed = [
        Delayed(worker, entry["request"]["name"], entry["request"]["id"], str(entry["eta"]))
        for worker, entries in scheduled.items()
        for entry in entries
    ]
    answers = inspect.query_task(*[task.message.id for task in taken]) or {}
    said = {
        task_id: (worker, state) for worker, tasks in answers.items() for task_id, (state, _) in tasks.items()
    }
    told = []
    for task in taken:
        worker, state = said.get(task.message.id, (task.worker, task.state))
        told.append(replace(task, worker=worker, state=state))
    return sorted(delayed, key=lambda task: task.eta), tuple(told)


def _results(limit: int) -> tuple[tuple[StoredResult, ...], int]:
    """Return some results, as Redis happens to list them, and the number of keys in their database."""
    backend: Any = app.backend
    client = backend.client
    try:
        keys = list(itertools.islice(client.scan_iter(f"{RESULTS}*", count=max(limit, 100)), limit))
        values = client.mget(keys) if keys else []
        left = [client.pttl(key) for key in keys]
        total = client.dbsize()
    except backend.connection_errors as error:
        raise OperationalError(broker_trouble(error)) from error
    results = []
    for value, milliseconds in zip(values, left, strict=True):
        if value is not None:  # it has not expired at this moment
            meta = backend.decode(value)
            expires = milliseconds / 1000 if milliseconds >= 0 else None
            name, state = meta.get("name"), meta["status"]
            results.append(StoredResult(meta["task_id"], name, state, meta["result"], expires))
    return tuple(results), total


# --- showing ----------------------------------------------------------------------------------------------


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:  # an id stays whole, so that it can be copied; the last column may be cut
        table.add_column(column, no_wrap=column != columns[-1])
    return table


def _cut(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _messages(
    title: str, own: list[str], rows: Sequence[tuple[Message, *tuple[str, ...]]], total: int
) -> Iterator[Table]:
    """Give a table of messages; `rows` holds the message, and what the columns `own` say."""
    if not rows:
        return
    table = _table(_titled(title, rows, total), *own, "queue", "task", "id", "arguments")
    for message, *values in rows:
        notes = [f"retry {message.headers['retries']}"] if message.headers.get("retries") else []
        notes += [f"not before {message.headers['eta']}"] if message.headers.get("eta") else []
        arguments = " ".join([message.arguments, *(f"[{note}]" for note in notes)])
        table.add_row(*values, message.queue, _short(message.task), message.id, _cut(arguments))
    yield table


def _titled(title: str, rows: Sized, total: int) -> str:
    return f"{title}: {total}" if len(rows) == total else f"{title}: {len(rows)} of {total}"


def _short(task: str | None) -> str:
    return (task or "").rpartition(".")[2]
