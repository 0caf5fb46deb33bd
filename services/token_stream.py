"""What a running task says, while it says it: tokens and progress in a Redis stream, one for each task.

What to learn here: a stream keeps what it was told. So a reader that comes late, or comes again after a lost
connection, misses nothing; with publish/subscribe it would. And the stream is only the quick way: what is
true stands in the database. If Redis is away, its readers miss tokens, and the task goes on.

    stream = RedisStreamPublisher(client(), task_id)
    stream.publish("token", text="Once ")

    async for event in follow(async_client(), task_id):
        print(event.id, event.type, event.data)

The events of a run:

- `restart` {}: a run begins. What came before is void: a reader empties what it shows
- `status` {"status": "processing"}: also "retrying" and "interrupted" (the worker ends), with "reason" and
  the "seconds" until the next run
- `progress` {"percent": 40, "step": "40 of 100 tokens"}
- `token` {"text": "Once "}: a piece of the text
- `end` {"status": "completed"}: or cancelled, or failed with "reason". A worker that was killed writes none
"""

import json
import logging
import re
import time
from collections.abc import AsyncGenerator
from typing import Any, Literal, NamedTuple

import redis
import redis.asyncio

log = logging.getLogger(__name__)

Kind = Literal["restart", "status", "progress", "token", "end"]

MOST_EVENTS = 5_000  # of one run; of a longer one the oldest are dropped
EXPIRES = 3600  # seconds after the last event: as long as Celery keeps the result (celery_app.py)
PAUSE = 2.0  # seconds without a try after a failed one: a task must not wait for Redis at each token
BLOCK = 1000  # milliseconds that a reader waits in the server
FIRST = "0-0"  # the id before all others
_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_LARGEST = 2**64  # of either part of an id


class Event(NamedTuple):
    """One event. Whoever reads on later says the `id` of the last one that it has seen."""

    id: str
    type: str
    data: dict[str, Any]


def key_of(task_id: str) -> str:
    """Return the key of a task's stream."""
    return f"task-events:{task_id}"


class _Publisher:
    """What both publishers share: how an event is written, and what happens when it cannot be."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self._quiet_until = 0.0
        self._has_told = False

    def _is_quiet(self) -> bool:
        return time.monotonic() < self._quiet_until

    def _write(self, pipeline: Any, kind: Kind, data: dict[str, Any]) -> None:
        key = key_of(self.task_id)
        if kind == "restart":
            pipeline.xtrim(key, maxlen=0)  # its ids go on: a reader's last one stays good
        pipeline.xadd(key, {"type": kind, "data": json.dumps(data)}, maxlen=MOST_EVENTS)
        pipeline.expire(key, EXPIRES)

    def _failed(self, error: redis.RedisError) -> None:
        self._quiet_until = time.monotonic() + PAUSE
        if not self._has_told:
            log.warning("Redis does not take the events of this task (%s). It goes on without them.", error)
        self._has_told = True


class RedisStreamPublisher(_Publisher):
    """Writes the events of a task. It never raises because of Redis."""

    def __init__(self, client: redis.Redis, task_id: str) -> None:
        super().__init__(task_id)
        self._client = client

    def publish(self, kind: Kind, **data: Any) -> None:
        """Write an event. `data` can be written as JSON."""
        if self._is_quiet():
            return
        try:
            with self._client.pipeline() as pipeline:
                self._write(pipeline, kind, data)
                pipeline.execute()
        except redis.RedisError as error:
            self._failed(error)


class AsyncRedisStreamPublisher(_Publisher):
    """Writes the events of a task that awaits. It never raises because of Redis."""

    def __init__(self, client: redis.asyncio.Redis, task_id: str) -> None:
        super().__init__(task_id)
        self._client = client

    async def publish(self, kind: Kind, **data: Any) -> None:
        """Write an event. `data` can be written as JSON."""
        if self._is_quiet():
            return
        try:
            async with self._client.pipeline() as pipeline:
                self._write(pipeline, kind, data)
                await pipeline.execute()
        except redis.RedisError as error:
            self._failed(error)


def check_id(event_id: str) -> str:
    """Return the id of an event. Raises `ValueError` if it can be none: Redis would refuse it later."""
    if not _ID.fullmatch(event_id) or max(map(int, event_id.split("-"))) >= _LARGEST:
        raise ValueError(f"after_id={event_id[:50]!r}: use the id of an event, or 0-0")
    return event_id


async def follow(client: redis.asyncio.Redis, task_id: str, after_id: str = FIRST) -> AsyncGenerator[Event]:
    """Give the events of a task after the one with the id `after_id`, and stop after an `end`.

    It waits for a stream that is not there yet. A worker that was killed writes no `end`: look at the task's
    row meanwhile, or limit the wait. Raises `ValueError` for an id that can be none, and redis-py's errors.
    """
    last = check_id(after_id)
    while True:
        found = await client.xread({key_of(task_id): last}, count=100, block=BLOCK)
        for last, fields in _entries(found):
            yield Event(last, fields["type"], json.loads(fields["data"]))
            if fields["type"] == "end":
                return


def _entries(found: Any) -> list[tuple[str, dict[str, str]]]:
    """Return the entries of the one stream that was read."""
    pairs = found.items() if isinstance(found, dict) else found or ()
    return [entry for _, entries in pairs for entry in entries]
