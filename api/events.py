"""What happens to one task, while it happens, from two sources.

The worker writes its tokens and its progress to a stream in Redis: it is quick, and keeps everything for a
reader that comes later. The row says what is true: a killed worker writes no last word to a stream. So the
row is read once a second, and with Redis away it is all that the client gets.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import ServerSentEvent
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.views import TaskView
from services.task_records import FINISHED
from services.token_stream import Event, follow

LOOK_SECONDS = 1.0  # how often the row is read
QUIET_SECONDS = 0.3  # when the row has ended: what the stream still holds comes without such a pause
AGAIN_SECONDS = 0.2  # after the stream has ended before its row, or Redis did not answer
RETRY = 1000  # milliseconds after which a browser connects again


async def events_of(
    redis: Redis, task_id: str, after: str, look: Callable[[], TaskView]
) -> AsyncIterator[ServerSentEvent]:
    """Give the events of a task after the event `after`, until the task has ended.

    `look` reads its row. An event `task` is the whole of it, and comes whenever it has changed. The others
    are those of the stream: their ids are what a client sends as Last-Event-ID when it comes again.
    """
    stream = Stream(redis, task_id, after)
    last = None
    try:
        yield ServerSentEvent(retry=RETRY)
        while True:
            now = await run_in_threadpool(look)
            is_over = now.status in FINISHED
            if not is_over and now != last:
                yield ServerSentEvent(event="task", data=now)
            last = now
            async for event in stream.read(QUIET_SECONDS if is_over else LOOK_SECONDS, until_quiet=is_over):
                yield ServerSentEvent(id=event.id, event=event.type, data=event.data)
            if is_over:
                yield ServerSentEvent(event="task", data=now)
                yield ServerSentEvent(event="end", data=now.status)
                return
    finally:
        await stream.close()


class Stream:
    """The stream of a task, from the event `after` on. A lost connection to Redis ends nothing."""

    def __init__(self, redis: Redis, task_id: str, after: str) -> None:
        self.redis, self.task_id, self.after = redis, task_id, after
        self._events: AsyncGenerator[Event] | None = None
        self._next: asyncio.Task[Event] | None = None

    async def read(self, seconds: float, until_quiet: bool) -> AsyncIterator[Event]:
        """Give what comes within `seconds`, or until nothing has come for `seconds`. Stop after an `end`."""
        time = asyncio.get_running_loop().time
        deadline = time() + seconds
        while (left := deadline - time()) > 0:
            event = await self._take(left)
            if event is None or event.type == "end":  # the row has the last word
                return
            yield event
            if until_quiet:
                deadline = time() + seconds

    async def _take(self, seconds: float) -> Event | None:
        """Return the next event, or None if none comes within `seconds`."""
        self._events = self._events or follow(self.redis, self.task_id, self.after)
        self._next = self._next or asyncio.ensure_future(anext(self._events))
        # Not `wait_for`: what it cancels would be lost. This one goes on waiting for the next call.
        done, _ = await asyncio.wait({self._next}, timeout=seconds)
        if not done:
            return None
        taken, self._next = self._next, None
        try:
            event = taken.result()
        except (StopAsyncIteration, RedisError):  # it has ended, or Redis is away
            self._events = None
            await asyncio.sleep(min(seconds, AGAIN_SECONDS))
            return None
        self.after = event.id
        return event

    async def close(self) -> None:
        """Let go of the connection."""
        if self._next:
            self._next.cancel()
            await asyncio.wait({self._next})
        if self._events:
            await self._events.aclose()
