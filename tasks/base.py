"""What tasks of several modules share: the base of `async def` tasks, and how a task says how far it is.

Celery does not await; `AsyncTask` does:

    @app.task(base=AsyncTask)
    async def fetch(url: str) -> str: ...

Each worker process has one event loop, in a thread of its own, for as long as it lives. So a client that a
task leaves open is still good for the next task. On the threads pool all tasks run on it at the same time.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any

from celery import Task
from celery.app.task import Context

from celery_app import AppTask

CLEAN_UP_SECONDS = 5.0

_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}
# Celery keeps the request by thread. On the loop's thread many tasks take turns, each with a context.
_request: ContextVar[Context | None] = ContextVar("request", default=None)


class AsyncTask(AppTask):
    """A task that runs its `async def` body on the process's event loop, and waits for the result.

    On the prefork pool the soft time limit cancels the coroutine: it sees `CancelledError`, and has
    `CLEAN_UP_SECONDS` to tidy up. The task then fails with `SoftTimeLimitExceeded`.
    A body that needs the work of another such task awaits it: `await other.run(…)`.
    """

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body to its end and return its result."""
        token = _request.set(self.request)
        try:
            return _wait_for(self.run(*args, **kwargs))
        finally:
            _request.reset(token)

    def _get_request(self) -> Context:
        return _request.get() or super()._get_request()  # type: ignore[misc]

    request = property(_get_request)


def _wait_for(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on the loop of this process. If the wait is interrupted, cancel it and let it end."""
    ended = threading.Event()

    async def run() -> Any:
        try:
            return await coroutine
        finally:
            ended.set()

    future: Future[Any] = asyncio.run_coroutine_threadsafe(run(), _loop())
    try:
        return future.result()
    except BaseException:
        if future.cancel():  # the error came from outside, such as SoftTimeLimitExceeded
            ended.wait(CLEAN_UP_SECONDS)
        raise


def _loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of this process. A pool child never uses one from before the fork."""
    with _lock:
        if os.getpid() not in _loops:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="event loop", daemon=True).start()
        return _loops[os.getpid()]


def report_progress(task: Task, current: int, total: int, status: str) -> None:
    """Store the progress of the running `task`: `AsyncResult(id).info` gives it to whoever has the id.

    The state is PROGRESS, a name of our own. SUCCESS or FAILURE here would hide the real end.
    """
    percent = round(100 * current / total) if total else 100
    meta = {"current": current, "total": total, "percent": percent, "status": status}
    task.update_state(state="PROGRESS", meta=meta)
