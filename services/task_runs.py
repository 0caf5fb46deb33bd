"""The worker's side of a task record: claim it, say how far it is, and write down what came of it.

What to learn here: a message that comes twice must not run the task twice, and a worker that is killed must
not leave the row "processing" for ever. A claim is one statement, and has a lease that heartbeats renew. When
they end, another worker may claim the row, or somebody says that it was lost. What it writes then is refused.
"""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import Update, and_, func, or_, select, update
from sqlalchemy.orm import Session

from services.database import now, writing
from services.models import TaskRecord
from services.task_records import FINISHED, NoSuchTask, Status

LEASE = timedelta(seconds=15)  # how long a row belongs to a worker that says nothing
HEARTBEAT = LEASE.total_seconds() / 5  # seconds: one or two may come late on a busy machine
LOST = "The worker that ran it was lost: its process ended, or its machine. Replay it to run it again."


class BeingRun(Exception):
    """Another worker runs the task, and says so by its heartbeats. It may still be lost: come back later."""


class Cancelled(Exception):
    """The user cancelled the task. Its body should end at once."""


class ClaimLost(Exception):
    """Another worker has the row now, or it was replayed: what this one did no longer counts."""


@dataclass
class Run:
    """One run of a task by this process. `arguments` are those of its row."""

    task_id: str
    owner: str
    arguments: dict[str, Any]
    _trouble: Exception | None = field(default=None, init=False)

    def check(self) -> None:
        """Raise `Cancelled` or `ClaimLost` if a heartbeat has seen it. Cheap: call it in every loop."""
        if self._trouble:
            raise self._trouble

    def report(self, percent: int, step: str) -> None:
        """Write the progress into the row: 0 to 100, and a few words. It is a heartbeat, too.

        Raises `Cancelled` or `ClaimLost`.
        """
        self._beat(percent=percent, step=step[:200])
        self.check()

    def complete(self, result: Any) -> None:
        """Write the result, which can be written as JSON. Raises `ClaimLost`."""
        self._end("completed", result=result, percent=100)

    def fail(self, error: str) -> None:
        """Write that the task failed, and why. Raises `ClaimLost`."""
        self._end("failed", error=error)

    def cancelled(self) -> None:
        """Write that the task ended because it was cancelled. Raises `ClaimLost`."""
        self._end("cancelled")

    def give_back(self, reason: str) -> None:
        """Let the row wait again, for a message that Celery sends later: a retry. Raises `ClaimLost`."""
        with writing() as session:
            self._change(session, status="pending", owner=None, heartbeat_at=None, step=reason[:200])

    def beat(self) -> None:
        """Renew the lease. What is wrong is kept for `check`."""
        self._beat()

    def _beat(self, **progress: Any) -> None:
        with writing() as session:
            mine = _mine(self).values(heartbeat_at=now(session), **progress)
            asked = session.scalars(mine.returning(TaskRecord.cancel_requested)).one_or_none()
        if asked is None:
            self._trouble = ClaimLost(self.task_id)
        elif asked:
            self._trouble = Cancelled(self.task_id)

    def _end(self, status: Status, **values: Any) -> None:
        with writing() as session:
            self._change(session, status=status, finished_at=now(session), **values)

    def _change(self, session: Session, **values: Any) -> None:
        if session.scalars(_mine(self).values(**values).returning(TaskRecord.id)).one_or_none() is None:
            raise ClaimLost(self.task_id)


def claim(task_id: str, lease: timedelta = LEASE) -> Run | None:
    """Claim a task for this process. Return None if it has finished: there is nothing to do.

    Raises `BeingRun` if another worker runs it, and `NoSuchTask`.
    """
    with writing() as session:
        moment = now(session)
        abandoned = and_(TaskRecord.status == "processing", TaskRecord.heartbeat_at < moment - lease)
        free = update(TaskRecord).where(
            TaskRecord.id == task_id, or_(TaskRecord.status == "pending", abandoned)
        )
        claimed = free.values(
            status="processing",
            owner=uuid.uuid4().hex,
            heartbeat_at=moment,
            runs=TaskRecord.runs + 1,
            # A message that was sent just before its dispatcher died need not be sent again.
            dispatched_at=func.coalesce(TaskRecord.dispatched_at, moment),
        )
        row = session.scalars(claimed.returning(TaskRecord)).one_or_none()
        if row:
            return Run(task_id, str(row.owner), row.arguments)
        status = session.scalar(select(TaskRecord.status).where(TaskRecord.id == task_id))
    if status is None:
        raise NoSuchTask(f"No task has the id {task_id!r}.")
    if status in FINISHED:
        return None
    raise BeingRun(task_id)


@contextmanager
def heartbeats(run: Run) -> Iterator[None]:
    """Renew the lease of `run` from a thread while the block runs, however long its steps take."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT):
            run.beat()

    thread = threading.Thread(target=beat, name=f"heartbeat {run.task_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def fail_lost(lease: timedelta = 2 * LEASE) -> int:
    """Say of rows whose worker fell silent that it was lost. Return how many there were.

    It waits longer than a claim does: Celery may deliver the message again by itself, and that is better.
    """
    with writing() as session:
        moment = now(session)
        silent = update(TaskRecord).where(
            TaskRecord.status == "processing", TaskRecord.heartbeat_at < moment - lease
        )
        failed = silent.values(status="failed", error=LOST, finished_at=moment)
        return len(session.scalars(failed.returning(TaskRecord.id)).all())


def _mine(run: Run) -> Update:
    return update(TaskRecord).where(
        TaskRecord.id == run.task_id, TaskRecord.owner == run.owner, TaskRecord.status == "processing"
    )
