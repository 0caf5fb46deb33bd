"""The worker's side of a task record for a task that awaits: the same statements, over an async connection.

What to learn here: SQLAlchemy runs code that was written for a session on an async one (`run_sync`). So the
rules of the claim stand once, in task_runs.py. What a coroutine can do better is to stop: the heartbeat that
sees a cancel cancels it at once, wherever it waits.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services import task_runs
from services.database import async_writing, now, upsert
from services.models import TaskRecord
from services.task_runs import HEARTBEAT, Run

log = logging.getLogger(__name__)
T = TypeVar("T")


class AsyncRun:
    """A run whose row is written with `await`. See `Run`."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.check = run.check

    async def report(self, percent: int, step: str) -> None:
        """Write the progress: 0 to 100, and a few words. Raises `Cancelled` or `ClaimLost`."""
        await _write(lambda session: self.run.beat_in(session, percent=percent, step=step[:200]))
        self.check()

    async def beat(self) -> None:
        """Renew the lease. What is wrong is kept for `check`."""
        await _write(self.run.beat_in)

    async def complete(self, result: Any) -> None:
        """Write the result, which can be written as JSON. Raises `ClaimLost`."""
        await _write(lambda session: self.run.end_in(session, "completed", result=result, percent=100))

    async def fail(self, error: str) -> None:
        """Write that the task failed, and why. Raises `ClaimLost`."""
        await _write(lambda session: self.run.end_in(session, "failed", error=error))

    async def cancelled(self) -> None:
        """Write that the task ended because it was cancelled. Raises `ClaimLost`."""
        await _write(lambda session: self.run.end_in(session, "cancelled"))

    async def give_back(self, reason: str) -> None:
        """Let the row wait again, for a message that comes later. Raises `ClaimLost`."""
        await _write(lambda session: self.run.give_back_in(session, reason))


async def claim(task_id: str) -> AsyncRun | None:
    """Claim a task, as `task_runs.claim` does."""
    run = await _write(lambda session: task_runs.claim_in(session, task_id))
    return AsyncRun(run) if run else None


async def keep(task_id: str, task: str, arguments: dict[str, Any], user_id: str) -> None:
    """Write the row of a task whose message was sent without one. A row that is there stays as it is."""

    def insert(session: Session) -> None:
        moment = now(session)
        row = {"id": task_id, "task": task, "arguments": arguments, "user_id": user_id}
        new = upsert(session, TaskRecord).values(**row, created_at=moment, dispatched_at=moment)
        session.execute(new.on_conflict_do_nothing())

    await _write(insert)


async def result_of(task_id: str) -> Any:
    """Return the stored result of a task."""
    async with async_writing() as session:
        record = await session.get_one(TaskRecord, task_id)
        return record.result


@asynccontextmanager
async def heartbeats(run: AsyncRun) -> AsyncIterator[None]:
    """Renew the lease of `run` while the block runs. If it was cancelled or lost, cancel the block."""
    body = asyncio.current_task()
    assert body

    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            try:
                await run.beat()
                run.check()
            except SQLAlchemyError as error:  # the lease lasts for some more tries
                log.warning("The heartbeat of task %s was not written: %s", run.run.task_id, error)
            except (task_runs.Cancelled, task_runs.ClaimLost):
                body.cancel()
                return

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating


async def _write(work: Callable[[Session], T]) -> T:
    async with async_writing() as session:
        return await session.run_sync(work)
