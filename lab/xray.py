"""Look into the broker: what waits, what is unacknowledged, what is bound, which results are kept.

    xray("basic")                     # in a notebook: tables
    print(xray("basic").text())       # the same as text
    xray("basic").messages[0]         # one message, opened

It only reads, and it reads only what it shows: a queue of 100,000 messages is as quick as one of ten.
What other programs have left in the same databases is shown as what it is, and stops nothing.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from kombu.exceptions import KombuError, OperationalError
from redis import RedisError
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

import broker
from broker import BINDINGS, RESULTS, Binding, OtherKey, as_text, ask_all, beginning, broker_channel
from celery_app import QUEUES, app, broker_trouble
from lab import console, markup
from lab.markup import SHORT_ID

WIDTH = 110
MOST_UNACKNOWLEDGED = 1000  # how many unacknowledged messages are looked at to find those of one queue
MOST_BYTES = 1_000_000  # of a result that is opened
MOST_LETTERS = 2000  # of a value that is shown
INSPECT_SECONDS = 0.5


class _Readable:
    """Something with a rich view: tables in a notebook and in a terminal, and the same as text."""

    def view(self, width: int) -> RenderableType:
        """Return the view for so many columns."""
        raise NotImplementedError

    def text(self, width: int = WIDTH) -> str:
        """Return the view as plain text of `width` columns."""
        return console.as_text(self.view(width), width)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.view(options.max_width)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.text(), "text/html": markup.page(markup.of_view(self.view(WIDTH)))}


@dataclass(frozen=True)
class Message(_Readable, broker.Message):
    """One message, and a view of its parts."""

    def view(self, width: int) -> RenderableType:
        """Return a table of all fields."""
        table = Table("part", "field", "value", title=f"A message of queue {self.queue}", box=box.SIMPLE_HEAD)
        body = {"args": list(self.args), "kwargs": self.kwargs, "embed": self.embed}
        parts: dict[str, dict[str, Any]] = {
            "headers": self.headers,
            "properties": {"content_type": self.content_type, **self.properties},
            "body": {"problem": self.problem} if self.problem else body,
        }
        for part, fields in parts.items():
            for number, (name, value) in enumerate(fields.items()):
                table.add_row(part if number == 0 else "", _text(name), _text(json.dumps(value)))
        return table


@dataclass(frozen=True)
class Unacknowledged:
    """A message that a worker has taken and not acknowledged, and for how long, in seconds.

    `age` is None if Redis does not say since when: then nobody delivers the message again.
    `state` is what the worker says of it: active (it runs), reserved (it waits until the worker is free) or
    scheduled (it waits for its time). Where no worker answers for it, `worker` is empty, and it says so.
    """

    message: Message
    age: float | None
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
    """What the result backend keeps of one task, and for how many seconds more (None: for ever).

    `problem` says what is there instead, if it is not what Celery writes as JSON.
    """

    id: str
    task: str
    state: str
    value: Any
    expires: float | None
    problem: str = ""


@dataclass(frozen=True)
class XRay(_Readable):
    """What the broker and the result backend hold at this moment.

    `waiting` maps each queue to the lengths of its priority lists. The tuples hold at most `limit` entries
    (`messages` for each queue, the one served next first; `unacknowledged` the oldest first). The totals
    count all. `results_total` counts every key of the result database, also those of groups and chords.
    `other_keys` are those of both databases that belong to neither kombu nor a task's result; for one queue,
    what lies where its own lists should be. `notes` say what could not be looked at, and why.
    """

    queue: str | None
    limit: int
    waiting: dict[str, dict[int, int]]
    messages: tuple[Message, ...]
    unacknowledged: tuple[Unacknowledged, ...]
    unacknowledged_total: int
    delayed: tuple[Delayed, ...]
    delayed_total: int
    bindings: tuple[Binding, ...]
    results: tuple[StoredResult, ...]
    results_total: int
    other_keys: tuple[OtherKey, ...]
    other_keys_total: int
    notes: tuple[str, ...]

    def as_json(self) -> str:
        """Return all of it as JSON. Numbers that JSON does not have, such as NaN, are text in it."""
        return json.dumps(_for_json(asdict(self)), indent=2, allow_nan=False)

    def view(self, width: int) -> RenderableType:
        """Return the tables. In less than `WIDTH` columns ids are cut, so that values need not be."""
        opened = [message.view(width) for message in self.messages[:1] if self.queue]
        return Group(self._queues(), *self._tables(width < WIDTH), *map(_text, self.notes), *opened)

    def _queues(self) -> Table:
        table = _columns("Queues", ["queue", "waiting", "by priority (0 is served first)"])
        for queue, lengths in self.waiting.items():
            parts = ", ".join(f"p{priority}: {length}" for priority, length in lengths.items())
            table.add_row(queue, str(sum(lengths.values())), parts)
        return table

    def _tables(self, narrow: bool) -> Iterator[Table]:
        """Give the tables that have rows."""

        table = partial(_table, narrow=narrow)
        waiting = sum(sum(lengths.values()) for lengths in self.waiting.values())
        lists = [(f"p{message.priority}", *_of_message(message)) for message in self.messages]
        yield from table("Waiting, the next first", ["list", *MESSAGE_COLUMNS], lists, waiting)
        title = "Unacknowledged, in all queues"
        columns = ["age", "state", *MESSAGE_COLUMNS]
        taken = [
            (_seconds(one.age, "?", 1), one.state, *_of_message(one.message)) for one in self.unacknowledged
        ]
        yield from table(title, columns, taken, self.unacknowledged_total)
        title = "Delayed in the memory of workers"
        delayed = [(task.worker, _short(task.task), task.id, task.eta) for task in self.delayed]
        yield from table(title, ["worker", "task", "id", "not before"], delayed, self.delayed_total)
        title = "Keys of the result database"
        columns = ["expires in", "task", "id", "state", "value"]
        results = [
            (
                _seconds(one.expires, "never"),
                _short(one.task),
                one.id,
                one.state,
                one.problem or repr(one.value),
            )
            for one in self.results
        ]
        yield from table(title, columns, results, self.results_total)
        bindings = [
            (bound.exchange, bound.routing_key, bound.queue or bound.problem) for bound in self.bindings
        ]
        yield from table("Bindings", ["exchange", "routing key", "queue"], bindings, len(bindings))
        others = [(key.type, str(key.size), key.name, key.begin) for key in self.other_keys]
        columns = ["type", "size", "key", "begins with"]
        yield from table("Other keys", columns, others, self.other_keys_total)


def xray(queue: str | None = None, limit: int = 10) -> XRay:
    """Look at `queue`, or at all queues, and at what workers and the result backend hold.

    At most `limit` entries of each kind are read. It changes no message and takes none.
    Raises `ValueError` for an unknown queue, a limit below 1 or a broker that is not Redis, and
    `OperationalError` if the broker does not answer.
    """
    if limit < 1:
        raise ValueError(f"limit={limit!r}: must be 1 or more")
    if queue is not None:
        broker.check_queue(queue)
    with broker_channel() as channel:
        if not hasattr(channel, "unacked_key"):
            raise ValueError(f"X-ray reads Redis. The broker is {channel.connection.transport.driver_type}.")
        waiting, messages = _waiting(channel, queue, limit)
        taken, total = _taken(channel, queue, limit)
        bindings = [bound for bound in broker.bindings(channel) if queue in (None, bound.queue)]
        [workers] = ask_all(channel.client, [("scard", f"{BINDINGS}celery.pidbox")])
        others, others_total = _other_keys(channel, queue, limit)
    # What a worker has in its memory is unacknowledged: without any, no worker need be asked.
    delayed, taken, notes = _ask_workers(workers or 0, taken) if total else ([], taken, [])
    results, results_total = _results(limit)
    return XRay(
        queue=queue,
        limit=limit,
        waiting=waiting,
        messages=tuple(messages),
        unacknowledged=tuple(taken),
        unacknowledged_total=total,
        delayed=tuple(delayed[:limit]),
        delayed_total=len(delayed),
        bindings=tuple(sorted(bindings, key=lambda bound: (bound.exchange, bound.queue))),
        results=tuple(results),
        results_total=results_total,
        other_keys=tuple(others),
        other_keys_total=others_total,
        notes=tuple(notes),
    )


# --- reading ----------------------------------------------------------------------------------------------


def _waiting(channel: Any, queue: str | None, limit: int) -> tuple[dict[str, dict[int, int]], list[Message]]:
    lengths = {name: broker.waiting_by_priority(channel, name) for name in ([queue] if queue else QUEUES)}
    messages = [
        _viewed(message)
        for name in lengths
        for message in broker.next_messages(channel, name, lengths[name], limit)
    ]
    return lengths, messages


def _taken(channel: Any, queue: str | None, limit: int) -> tuple[list[Unacknowledged], int]:
    found = (
        Unacknowledged(_viewed(message), age)
        for message, age in broker.unacknowledged(channel, MOST_UNACKNOWLEDGED)
        if queue in (None, message.queue)
    )
    return list(islice(found, limit)), broker.unacknowledged_total(channel)


def _viewed(message: broker.Message) -> Message:
    return Message(**vars(message))


def _ask_workers(
    workers: int, taken: list[Unacknowledged]
) -> tuple[list[Delayed], list[Unacknowledged], list[str]]:
    """Return all delayed tasks, and `taken` with what the workers say of each. Third, what went wrong.

    `workers` is how many are known: when all have answered, it waits no longer.
    """
    inspect = app.control.inspect(timeout=INSPECT_SECONDS, limit=workers)
    try:
        scheduled = inspect.scheduled()
        if not scheduled:  # no worker answers: it would not answer a second time
            return [], taken, []
        answers = inspect.query_task(*[one.message.id for one in taken]) or {}
    except (RedisError, KombuError) as error:  # a full Redis can be read, and takes no question
        return [], taken, [f"The workers were not asked: {' '.join(str(error).split())}"]
    return _delayed(scheduled), [_answered(one, answers) for one in taken], []


def _delayed(answers: dict[str, Any]) -> list[Delayed]:
    """Return what workers say of their delayed tasks. A worker may answer with an error instead."""
    found = []
    for worker, tasks in answers.items():
        for task in tasks if isinstance(tasks, list) else ():
            match task:
                case {"eta": eta, "request": {"name": name, "id": task_id}}:
                    found.append(Delayed(worker, str(name), str(task_id), str(eta)))
    return sorted(found, key=lambda task: task.eta)


def _answered(taken: Unacknowledged, answers: dict[str, Any]) -> Unacknowledged:
    for worker, states in answers.items():
        match states.get(taken.message.id) if isinstance(states, dict) else None:
            case [str(state), *_]:
                return replace(taken, worker=worker, state=state)
    return taken


def _results(limit: int) -> tuple[list[StoredResult], int]:
    """Return some results, as Redis happens to list them, and the number of keys in their database."""
    backend: Any = app.backend
    client = backend.client
    try:
        keys = list(islice(client.scan_iter(f"{RESULTS}*", count=max(limit, 100)), limit))
        facts = ask_all(client, [(ask, key) for key in keys for ask in ("type", "strlen", "pttl")])
        sizes = zip(keys, facts[::3], facts[1::3], facts[2::3], strict=True)
        found = [_result(client, *fact) for fact in sizes if fact[1] != b"none"]  # it has expired now
        return [result for result in found if result], client.dbsize()
    except backend.connection_errors as error:
        raise OperationalError(broker_trouble(error)) from error


def _result(client: Any, key: bytes, kind: bytes, size: int | None, left: int) -> StoredResult | None:
    """Return what lies at a key of the result database: None if it has expired at this moment."""
    task_id = as_text(key).removeprefix(RESULTS)
    expires = left / 1000 if left >= 0 else None
    if size is None:
        return StoredResult(task_id, "", "", None, expires, f"({as_text(kind)}, not a string)")
    if size > MOST_BYTES:
        return StoredResult(task_id, "", "", None, expires, f"({size:,} bytes, not opened)")
    raw = client.get(key)
    if raw is None:
        return None
    match broker.json_or_none(raw):
        case {"status": state, "result": value} as meta:
            return StoredResult(task_id, str(meta.get("name") or ""), str(state), value, expires)
    return StoredResult(task_id, "", "", None, expires, f"(not a result in JSON: {beginning(raw)})")


def _other_keys(channel: Any, queue: str | None, limit: int) -> tuple[list[OtherKey], int]:
    """Return some keys that belong to neither kombu nor a task's result, and how many there are.

    For one queue, only the keys of its own lists are looked at.
    """
    backend: Any = app.backend
    clients = [channel.client]
    if queue is None and _place(backend.client) != _place(channel.client):
        clients.append(backend.client)
    lists = [key.encode() for key in broker.list_keys(channel, queue).values()] if queue else None
    found = [
        (client, key, kind)
        for client in clients
        for key, kind in broker.other_keys(channel, client, lists or client.scan_iter(count=1000))
    ]
    return [broker.other_key(*one) for one in found[:limit]], len(found)


def _place(client: Any) -> dict[str, Any]:
    """Return the server and the database of a client."""
    options = client.get_connection_kwargs()
    return {name: options.get(name) for name in ("host", "port", "path", "db")}


# --- showing ----------------------------------------------------------------------------------------------

MESSAGE_COLUMNS = ("queue", "task", "id", "arguments")


def _of_message(message: Message) -> tuple[str, str, str, str]:
    notes = [f"retry {message.headers['retries']}"] if message.headers.get("retries") else []
    notes += [f"not before {message.headers['eta']}"] if message.headers.get("eta") else []
    arguments = " ".join([message.arguments, *(f"[{note}]" for note in notes)])
    return message.queue, _short(message.task), message.id, arguments


def _table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], total: int, *, narrow: bool
) -> Iterator[Table]:
    """Give a table whose title says how many there are in all, if there are rows."""
    if rows:
        count = total if len(rows) == total else f"{len(rows)} of {total}"
        table = _columns(f"{title}: {count}", columns)
        for row in rows:
            cells = [
                f"{cell[:SHORT_ID]}…" if narrow and column == "id" and len(cell) > SHORT_ID else cell
                for column, cell in zip(columns, row, strict=True)
            ]
            table.add_row(*map(_text, cells[:-1]), _text(cells[-1], one_line=not narrow))
        yield table


def _columns(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:  # an id stays whole, so that it can be copied; the last column may be cut
        table.add_column(column, no_wrap=column != columns[-1])
    return table


def _text(text: str, *, one_line: bool = False) -> Text:
    """Return text of somebody else, harmless: no markup and no escape codes for the terminal."""
    cut = f"{text[:MOST_LETTERS]} … ({len(text):,} letters)" if len(text) > MOST_LETTERS else text
    style: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"} if one_line else {}
    return Text(console.printable(cut), **style)


def _seconds(seconds: float | None, unknown: str, digits: int = 0) -> str:
    return unknown if seconds is None else f"{seconds:.{digits}f} s"


def _short(task: str) -> str:
    return task.rpartition(".")[2]


def _for_json(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _for_json(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_for_json(entry) for entry in value]
        case float() if not math.isfinite(value):
            return str(value)
    return value
