"""Redis, read as kombu writes it: the one place that knows the keys and the form of the messages.

A queue is several lists, one for each priority. A message that a worker has taken is in none of them: it lies
in the hash `unacked`, and the sorted set `unacked_index` says since when. This module only reads.

Other programs may write into the same database. What is not of Celery is told as what it is, and stops
nothing. Only JSON is opened: to open a pickle is to run what its sender wrote.
"""

import base64
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypedDict

from kombu.exceptions import OperationalError
from redis import RedisError, ResponseError

from celery_app import QUEUES, app, broker_trouble, require_redis, unknown_queue

PAGE = 100  # entries that are read at a time
MOST_KEYS = 10_000  # keys that are looked at to find those of others
MOST_NESTED = 100  # levels of lists and objects in one another
SHOWN_BYTES = 60  # of what cannot be opened

# How the names of kombu's and Celery's own keys begin, or end, beside those of queues.
BINDINGS = "_kombu.binding."
EVENTS = "celeryev."
RESULTS = "celery-task-meta-"
REMOTE_CONTROL = ".celery.pidbox"
SIZE_OF = {
    "list": "llen",
    "set": "scard",
    "hash": "hlen",
    "zset": "zcard",
    "stream": "xlen",
    "string": "strlen",
}


class QueueLength(TypedDict):
    """How many messages a queue has."""

    waiting: int
    unacknowledged: int
    by_priority: dict[int, int]


@dataclass(frozen=True)
class Message:
    """One message. `priority` is the list that it lies in; `size` is in bytes, as it lies in Redis.

    `args`, `kwargs` and `embed` (callbacks, the rest of a chain, the chord) are what its body says. In the
    old protocol 1 the body is one object, and `embed` is all that it holds beside the arguments.
    If the body could not be opened, `problem` says why.
    """

    queue: str
    priority: int
    size: int
    headers: dict[str, Any]
    properties: dict[str, Any]
    content_type: str = ""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    embed: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def id(self) -> str:
        """The task id."""
        return str(self.headers.get("id") or self.embed.get("id") or "")

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self.headers.get("task") or self.embed.get("task") or "")

    @property
    def arguments(self) -> str:
        """The arguments, as one would type them."""
        if self.problem:
            return f"({self.problem})"
        return ", ".join([*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())])


@dataclass(frozen=True)
class Binding:
    """A queue that gets the messages of an exchange with this routing key.

    `problem` says what is there instead, where it is not what kombu writes with this app's separator.
    """

    exchange: str
    routing_key: str = ""
    queue: str = ""
    problem: str = ""


@dataclass(frozen=True)
class OtherKey:
    """A key that kombu and Celery do not know. `size` is in entries, for a string in bytes.

    `begin` is the beginning of a string, or of the next entry of a list.
    """

    name: str
    type: str
    size: int
    begin: str = ""


# --- The connection -------------------------------------------------------------------------------------


@contextmanager
def broker_channel() -> Iterator[Any]:
    """Give a channel to the broker.

    Raises `OperationalError` with the reason if the broker does not answer, or refuses a command.
    """
    require_redis()
    with app.connection_for_write() as connection:
        transport = connection.transport
        try:
            channel = transport.create_channel(transport.establish_connection())
        except connection.connection_errors + connection.channel_errors as error:
            raise OperationalError(broker_trouble(error)) from error
        try:
            yield channel
        except RedisError as error:  # and no more: to kombu, a KeyError of the caller is a lost connection
            raise OperationalError(broker_trouble(error)) from error


def check_queue(queue: str) -> None:
    """Raise `ValueError` for a queue that the app does not have."""
    if queue not in QUEUES:
        raise ValueError(unknown_queue(queue))


# --- Waiting --------------------------------------------------------------------------------------------


def list_key(channel: Any, queue: str, priority: int) -> str:
    """Return the key of the Redis list that holds the messages of `queue` with this priority."""
    return f"{queue}{channel.sep}{priority}" if priority else queue


def list_keys(channel: Any, queue: str) -> dict[int, str]:
    """Return the keys of all priority lists of `queue`, the one served first first."""
    return {priority: list_key(channel, queue, priority) for priority in channel.priority_steps}


def waiting_by_priority(channel: Any, queue: str) -> dict[int, int]:
    """Return the length of each priority list of `queue` that is not empty, the one served first first."""
    keys = list_keys(channel, queue)
    lengths = ask_all(channel.client, [("llen", key) for key in keys.values()])
    return {priority: length for priority, length in zip(keys, lengths, strict=True) if length}


def next_messages(channel: Any, queue: str, lengths: dict[int, int], limit: int) -> Iterator[Message]:
    """Give the next `limit` messages of a queue: list by list, each from its right end.

    `lengths` is what `waiting_by_priority` says of it.
    """
    for priority in lengths:
        raw = channel.client.lrange(list_key(channel, queue, priority), -limit, -1)
        yield from (open_message(entry, queue, priority) for entry in reversed(raw))
        limit -= len(raw)
        if limit == 0:
            return


def queue_lengths(channel: Any) -> dict[str, QueueLength]:
    """Return the length of each queue: all its priority lists, and what workers hold unacknowledged."""
    taken = Counter(_parts_of(entry)[1] for _, entry in _taken_entries(channel))
    lengths: dict[str, QueueLength] = {}
    for queue in QUEUES:
        by_priority = waiting_by_priority(channel, queue)
        waiting = sum(by_priority.values())
        lengths[queue] = {
            "waiting": waiting,
            "unacknowledged": taken[queue],
            "by_priority": by_priority,
        }
    return lengths


def ask_all(client: Any, questions: list[tuple[Any, ...]]) -> list[Any]:
    """Return the answers to commands, in one round trip. It is None where a key has another type."""
    with client.pipeline(transaction=False) as pipe:
        for command, *arguments in questions:
            getattr(pipe, command)(*arguments)
        answers = pipe.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception) and not str(answer).startswith("WRONGTYPE"):
            raise answer
    return [None if isinstance(answer, ResponseError) else answer for answer in answers]


# --- Unacknowledged -------------------------------------------------------------------------------------


def unacknowledged_total(channel: Any) -> int:
    """Return how many messages workers have taken and not acknowledged, in all queues."""
    [total] = ask_all(channel.client, [("hlen", channel.unacked_key)])
    return total or 0


def unacknowledged(channel: Any, limit: int) -> Iterator[tuple[Message, float | None]]:
    """Give at most `limit` unacknowledged messages, the oldest first, each with its age in seconds.

    Those that the index does not know come last. Their age is None, and nobody delivers them again.
    """
    seen = 0
    for entry, taken in _by_age(channel, limit):
        if entry is not None:  # None: acknowledged at this moment
            seen += 1
            yield _taken_message(entry), max(0.0, time.time() - taken)
    if unacknowledged_total(channel) > seen:
        others = (entry for tag, entry in _taken_entries(channel) if not _has_time(channel, tag))
        yield from ((_taken_message(entry), None) for entry in islice(others, limit - seen))


def _by_age(channel: Any, limit: int) -> Iterator[tuple[bytes | None, float]]:
    """Give the entry and the time of what the index knows, the oldest first."""
    for start in range(0, limit, PAGE):
        end = min(start + PAGE, limit) - 1
        index = ("zrange", channel.unacked_index_key, start, end, False, True)  # with the times
        [tags] = ask_all(channel.client, [index])
        if not tags:
            return
        [entries] = ask_all(channel.client, [("hmget", channel.unacked_key, [tag for tag, _ in tags])])
        for (_, taken), entry in zip(tags, entries or [None] * len(tags), strict=True):
            yield entry, taken


def _has_time(channel: Any, tag: bytes) -> bool:
    [moment] = ask_all(channel.client, [("zscore", channel.unacked_index_key, tag)])
    return moment is not None


def _taken_entries(channel: Any) -> Iterator[tuple[bytes, bytes]]:
    if channel.client.type(channel.unacked_key) == b"hash":
        yield from channel.client.hscan_iter(channel.unacked_key, count=PAGE)


def _taken_message(entry: bytes) -> Message:
    message, queue = _parts_of(entry)
    if message is None:
        return Message("", 0, len(entry), {}, {}, problem=f"not an entry of kombu: {beginning(entry)}")
    priority = message["properties"].get("priority")
    own = priority if isinstance(priority, int) else 0
    return open_message(json.dumps(message).encode(), queue, own)


def _parts_of(entry: bytes) -> tuple[dict[str, Any] | None, str]:
    """Return the message and the queue of an entry of `unacked`: None and "" if it is of another form."""
    match json_or_none(entry):
        case [{"properties": dict()} as message, _, routing_key]:
            return message, str(routing_key)  # it is the queue's name here
    return None, ""


# --- A message ------------------------------------------------------------------------------------------


def open_message(raw: bytes, queue: str, priority: int) -> Message:
    """Decode a message as it lies in Redis. What cannot be decoded, or should not be, is told in `problem`.

    `raw` is the entry of the list, `queue` and `priority` say which list it is.
    """
    match json_or_none(raw):
        case {
            "headers": dict(headers),
            "properties": dict(properties),
            "body": str(body),
            "content-type": kind,
        }:
            message = Message(queue, priority, len(raw), headers, properties, str(kind))
        case _:
            problem = f"not a message of Celery: {beginning(raw)}"
            return Message(queue, priority, len(raw), {}, {}, problem=problem)
    try:
        args, kwargs, embed = _open_body(message, body)
    except ValueError as error:
        return replace(message, problem=f"body not opened: {error}")
    return replace(message, args=tuple(args), kwargs=kwargs, embed=embed)


def _open_body(message: Message, body: str) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    if message.content_type != "application/json":
        raise ValueError(f"{message.content_type}, {len(body)} characters")
    if "compression" in message.headers:
        raise ValueError(f"compressed as {message.headers['compression']}")
    text = body.encode(errors="backslashreplace")
    if message.properties.get("body_encoding") == "base64":
        text = base64.b64decode(text, validate=True)
    match read_json(text):
        case [list(args), dict(kwargs), dict() | None as embed]:
            return args, kwargs, embed or {}
        case {"task": _, "id": _, "args": list(args), "kwargs": dict(kwargs)} as whole:  # protocol 1
            return args, kwargs, {key: whole[key] for key in whole if key not in ("args", "kwargs")}
    raise ValueError(f"it holds no arguments of a task: {beginning(text)}")


def read_json(text: str | bytes) -> Any:
    """Return what JSON says. Raises `ValueError` for what is no JSON, or is nested too deep to be shown."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    level = [value]
    for _ in range(MOST_NESTED):
        level = [child for parent in level for child in _children(parent)]
    if level:
        raise ValueError(f"it is nested deeper than {MOST_NESTED} levels")
    return value


def _children(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def json_or_none(text: str | bytes) -> Any:
    """Return what JSON says, and None for what `read_json` refuses."""
    try:
        return read_json(text)
    except ValueError:
        return None


def beginning(raw: bytes) -> str:
    """Return the beginning of what cannot be opened, with an escape for each byte that is no text."""
    return repr(raw[:SHOWN_BYTES].decode(errors="backslashreplace"))


# --- What else there is ---------------------------------------------------------------------------------


def bindings(channel: Any) -> Iterator[Binding]:
    """Give what is bound to the exchanges."""
    for key in channel.client.scan_iter(f"{BINDINGS}*", count=1000):
        exchange = as_text(key).removeprefix(BINDINGS)
        [members] = ask_all(channel.client, [("smembers", key)])
        if members is None:
            yield Binding(exchange, problem="the key is no set")
        for member in members or ():
            match as_text(member).split(channel.sep):
                # Pattern, the middle one, is for exchanges with wildcards.
                case [routing_key, _, queue]:
                    yield Binding(exchange, routing_key, queue)
                case _:
                    yield Binding(exchange, problem=f"not three parts: {beginning(member)}")


def other_keys(channel: Any, client: Any, names: Iterable[bytes]) -> list[tuple[bytes, str]]:
    """Return those of `names` that belong to neither kombu nor a task's result, each with its type.

    `client` is a client of their database. At most `MOST_KEYS` are looked at.
    """
    keys = sorted(islice(names, MOST_KEYS))
    kinds = [as_text(kind) for kind in ask_all(client, [("type", key) for key in keys])]
    own = _own_keys(channel)
    return [
        (key, kind)
        for key, kind in zip(keys, kinds, strict=True)
        # none: it is not there, or not any more
        if kind != "none" and own.get(as_text(key)) != kind and not _is_named_like_our_own(as_text(key))
    ]


def _own_keys(channel: Any) -> dict[str, str]:
    """Return the keys of queues and of what is unacknowledged, each with its type."""
    queues = [key for queue in QUEUES for key in list_keys(channel, queue).values()]
    return dict.fromkeys(queues, "list") | {
        channel.unacked_key: "hash",
        channel.unacked_index_key: "zset",
        channel.unacked_mutex_key: "string",
    }


def _is_named_like_our_own(key: str) -> bool:
    return key.startswith((BINDINGS, EVENTS, RESULTS)) or key.endswith(REMOTE_CONTROL)


def other_key(client: Any, key: bytes, kind: str) -> OtherKey:
    """Look at a key of this type."""
    looks = {"list": ("lindex", key, -1), "string": ("getrange", key, 0, SHOWN_BYTES - 1)}
    [size] = ask_all(client, [(SIZE_OF[kind], key)]) if kind in SIZE_OF else [0]
    [begin] = ask_all(client, [looks[kind]]) if kind in looks else [None]
    return OtherKey(as_text(key), kind, size or 0, beginning(begin) if begin else "")


def as_text(raw: bytes) -> str:
    """Return bytes as text, with an escape for each byte that is no text."""
    return raw.decode(errors="backslashreplace")
