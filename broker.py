"""Redis, read as kombu writes it: the one place that knows the keys and the form of the messages.

A queue is several lists, one for each priority. A message that a worker has taken is in none of them: it lies
in the hash `unacked`, and the sorted set `unacked_index` says since when. This module only reads.
"""

import base64
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from kombu.exceptions import OperationalError
from redis import RedisError

from celery_app import QUEUES, app, broker_trouble

PAGE = 100  # entries that are read at a time


class QueueLength(TypedDict):
    """How many messages a queue has."""

    waiting: int
    unacknowledged: int
    by_priority: dict[int, int]


@dataclass(frozen=True)
class Message:
    """One message. `priority` is the list that it lies in; `size` is in bytes, as it lies in Redis.

    `args`, `kwargs` and `embed` (callbacks, the rest of a chain, the chord) are what its body says. If the
    body could not be opened, `problem` says why.
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
        return str(self.headers.get("id", ""))

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self.headers.get("task", ""))

    @property
    def arguments(self) -> str:
        """The arguments, as one would type them."""
        if self.problem:
            return f"({self.problem})"
        return ", ".join([*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())])


# --- The connection -------------------------------------------------------------------------------------


@contextmanager
def broker_channel() -> Iterator[Any]:
    """Give a channel to the broker.

    Raises `OperationalError` with the reason if the broker does not answer, or refuses a command.
    """
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
        raise ValueError(f"queue={queue!r}: no such queue; use one of {', '.join(QUEUES)}")


# --- Waiting --------------------------------------------------------------------------------------------


def list_key(channel: Any, queue: str, priority: int) -> str:
    """Return the key of the Redis list that holds the messages of `queue` with this priority."""
    return f"{queue}{channel.sep}{priority}" if priority else queue


def waiting_by_priority(channel: Any, queue: str) -> dict[int, int]:
    """Return the length of each priority list of `queue` that is not empty, the one served first first."""
    lengths = {
        priority: channel.client.llen(list_key(channel, queue, priority))
        for priority in channel.priority_steps
    }
    return {priority: length for priority, length in lengths.items() if length}


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
    taken = Counter(
        _parts_of(entry)[1] for _, entry in channel.client.hscan_iter(channel.unacked_key, count=PAGE)
    )
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


# --- Unacknowledged -------------------------------------------------------------------------------------


def unacknowledged_total(channel: Any) -> int:
    """Return how many messages workers have taken and not acknowledged, in all queues."""
    return int(channel.client.hlen(channel.unacked_key))


def unacknowledged(channel: Any, limit: int) -> Iterator[tuple[Message, float]]:
    """Give the first `limit` unacknowledged messages, the oldest first, each with its age in seconds."""
    for start in range(0, limit, PAGE):
        end = min(start + PAGE, limit) - 1
        tags = channel.client.zrange(channel.unacked_index_key, start, end, withscores=True)
        if not tags:
            return
        entries = channel.client.hmget(channel.unacked_key, [tag for tag, _ in tags])
        for (_, taken), entry in zip(tags, entries, strict=True):
            if entry is None:  # acknowledged at this moment
                continue
            message, queue = _parts_of(entry)
            priority = message["properties"].get("priority") or 0
            opened = open_message(json.dumps(message).encode(), queue, priority)
            yield opened, max(0.0, time.time() - taken)


def _parts_of(entry: bytes) -> tuple[dict[str, Any], str]:
    """Return the message and the queue of an entry of `unacked`."""
    message, _, routing_key = json.loads(entry)  # the routing key is the queue's name here
    return message, routing_key


# --- A message ------------------------------------------------------------------------------------------


def open_message(raw: bytes, queue: str, priority: int) -> Message:
    """Decode a message as it lies in Redis. What cannot be decoded, or should not be, is told in `problem`.

    `raw` is the entry of the list, `queue` and `priority` say which list it is.
    """
    try:
        parts = json.loads(raw)
        headers, properties = dict(parts["headers"]), dict(parts["properties"])
        body, content_type = str(parts["body"]), str(parts["content-type"])
    except (ValueError, TypeError, KeyError):
        text = raw[:60].decode(errors="replace")
        return Message(queue, priority, len(raw), {}, {}, problem=f"not a message of Celery: {text!r}")
    message = Message(queue, priority, len(raw), headers, properties, content_type)
    try:
        args, kwargs, embed = _open_body(message, body)
        return replace(message, args=tuple(args), kwargs=dict(kwargs), embed=dict(embed))
    except (ValueError, TypeError) as error:
        return replace(message, problem=f"body not opened: {error}")


def _open_body(message: Message, body: str) -> Any:
    if message.content_type != "application/json":
        # To open a pickle is to run what its sender wrote.
        raise ValueError(f"{message.content_type}, {len(body)} characters")
    if "compression" in message.headers:
        raise ValueError(f"compressed as {message.headers['compression']}")
    if message.properties.get("body_encoding") == "base64":
        return json.loads(base64.b64decode(body, validate=True))
    return json.loads(body)
