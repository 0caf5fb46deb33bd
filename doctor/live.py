"""Rules on the live broker, if it is Redis: how it is set up, what lies in it, who reads it. They only read."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from doctor.effective import Settings
from doctor.findings import Finding, Place

LIMIT = 2.0  # seconds for each question to the broker
LOOKED_AT = 200  # messages of a queue
KEYS = 10_000  # keys that are looked at


class NoAnswer(Exception):  # noqa: N818 - it says what the broker gives
    """The broker cannot be asked. The text says why."""


@dataclass(frozen=True)
class Broker:
    """A channel to Redis, and what the app says of it. `remarks` collects what could not be judged."""

    settings: Settings
    channel: Any
    info: dict[str, Any]
    remarks: list[str] = field(default_factory=list)

    @property
    def client(self) -> Any:
        """The client of redis-py."""
        return self.channel.client

    @cached_property
    def queues(self) -> list[str]:
        """The queues of the app."""
        return sorted(self.settings.loaded.app.amqp.queues)

    def key(self, queue: str, step: int) -> str:
        """Return the key of a list: the queue's name, with the priority behind if it is not 0."""
        return f"{queue}{self.channel.sep}{step}" if step else queue


def live_findings(settings: Settings, remarks: list[str]) -> Iterator[Finding]:
    """Give what is found in the broker. Raises `NoAnswer` if it cannot be asked."""
    if not settings.is_redis:
        raise NoAnswer(f"only Redis is read, and the broker is {settings.transport or 'of an unknown kind'}")
    with _connection(settings) as connection, _refusals(connection):
        connection.transport_options |= {"socket_timeout": LIMIT, "socket_connect_timeout": LIMIT}
        transport = connection.transport
        channel = transport.create_channel(transport.establish_connection())
        broker = Broker(settings, channel, channel.client.info(), remarks)
        for rule in LIVE_RULES:
            yield from rule(broker)


def _connection(settings: Settings) -> Any:
    return settings.loaded.app.connection_for_write()


@contextlib.contextmanager
def _refusals(connection: Any) -> Iterator[None]:
    """Turn what the broker refuses into one line. redis-py's texts name host and port, not the password."""
    from kombu.exceptions import OperationalError
    from redis import RedisError

    try:
        yield
    except (RedisError, OperationalError, OSError, *connection.connection_errors) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise NoAnswer(f"{connection.as_uri()} does not answer as Redis should ({words})") from None


# --- how it is set up -----------------------------------------------------------------------------------


def eviction(broker: Broker) -> Iterator[Finding]:
    """Find a server that deletes queues when it is full."""
    policy, limit = str(broker.info.get("maxmemory_policy", "")), int(broker.info.get("maxmemory", 0))
    # Without a limit nothing is deleted. volatile-… deletes keys with an expiry, and a queue has none.
    if policy.startswith("allkeys") and limit:
        what = f"maxmemory-policy is {policy}, with a maxmemory of {limit:,} bytes."
        yield Finding("eviction-policy", what, Place("broker: maxmemory-policy"))


def persistence(broker: Broker) -> Iterator[Finding]:
    """Find a server that writes no file, or only snapshots."""
    if str(broker.info.get("aof_enabled", "1")) == "0":
        yield Finding("no-persistence", "appendonly is off.", Place("broker: appendonly"))


# --- what lies in it ------------------------------------------------------------------------------------


def stranded(broker: Broker) -> Iterator[Finding]:
    """Find lists of a queue whose priority is none of the app's steps."""
    steps = set(broker.channel.priority_steps)
    for queue in broker.queues:
        others = range(256)
        candidates = [step for step in others if step not in steps]
        with broker.client.pipeline(transaction=False) as pipe:
            for step in candidates:
                pipe.llen(broker.key(queue, step))
            lengths = pipe.execute(raise_on_error=False)
        for step, length in zip(candidates, lengths, strict=True):
            if step and isinstance(length, int) and length:
                what = f"{length} messages of the queue {queue} lie in a list for priority {step}."
                yield Finding("stranded-messages", what, Place(f"broker: queue {queue}"))


def two_beats(broker: Broker) -> Iterator[Finding]:
    """Find a queue in which two beats have sent one task in turn.

    One that was restarted sends under a new name too. So the first must come again after the second.
    """
    for queue in broker.queues:
        senders: dict[str, list[str]] = {}
        for raw in broker.client.lrange(queue, 0, LOOKED_AT - 1) if _is_list(broker, queue) else ():
            headers = _headers(raw)
            if headers.get("celery_beat_task"):
                order = senders.setdefault(str(headers.get("task")), [])
                origin = str(headers.get("origin"))
                if order[-1:] != [origin]:
                    order.append(origin)
        for task, order in senders.items():
            if len(order) > len(set(order)):
                what = f"{task} was sent by {' and '.join(sorted(set(order)))} in turn."
                yield Finding("two-beats", what, Place(f"broker: queue {queue}"))


def _is_list(broker: Broker, key: str) -> bool:
    return bool(broker.client.type(key) == b"list")


def _headers(raw: bytes) -> dict[str, Any]:
    try:
        headers = json.loads(raw)["headers"]
    except (ValueError, LookupError, TypeError):
        return {}
    return headers if isinstance(headers, dict) else {}


# --- who reads it ---------------------------------------------------------------------------------------


def queues_without_worker(broker: Broker) -> Iterator[Finding]:
    """Find queues that no worker reads, if all workers that the broker knows have answered."""
    binding = "_kombu.binding.celery.pidbox"
    members = broker.client.smembers(binding) if broker.client.type(binding) == b"set" else ()
    known = {name for name in map(_node, members) if name}
    if not known:
        broker.remarks.append("no worker runs: queues that nobody reads were not looked for")
        return
    inspect = broker.settings.loaded.app.control.inspect(timeout=LIMIT, limit=len(known))
    answers = inspect.active_queues() or {}
    if missing := known - set(answers):
        broker.remarks.append(
            f"{', '.join(sorted(missing)[:3])} did not answer: queues that nobody reads were not looked for"
        )
        return
    read = {queue["name"] for queues in answers.values() for queue in queues}
    for queue in broker.queues:
        if queue not in read:
            lengths = [broker.client.llen(broker.key(queue, step)) for step in broker.channel.priority_steps]
            what = f"No worker reads the queue {queue}; {sum(lengths)} messages wait in it."
            yield Finding("queue-without-worker", what, Place(f"broker: queue {queue}"))


def _node(member: bytes) -> str:
    """Return the name of the worker of a binding: `…\\x06\\x16…\\x06\\x16worker@host.celery.pidbox`."""
    queue = member.decode(errors="replace").rpartition("\x16")[2]
    return queue.removesuffix(".celery.pidbox") if queue.endswith(".celery.pidbox") else ""


LIVE_RULES: tuple[Callable[[Broker], Iterator[Finding]], ...] = (
    eviction,
    persistence,
    stranded,
    two_beats,
    queues_without_worker,
)
