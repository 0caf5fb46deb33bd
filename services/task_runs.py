"""The worker's side of a task record: claim it, say how far it is, and write down what came of it.

What to learn here: a message that comes twice must not run the task twice, and a worker that is killed must
not leave the row "processing" for ever. A claim is one statement, and has a lease that heartbeats renew. When
they end, another worker may claim the row, or somebody says that it was lost. What it writes then is refused.
"""

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import Update, and_, case, func, null, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.database import now, writing
from services.models import TaskRecord
from services.task_records import FINISHED, NoSuchTask, Status

log = logging.getLogger(__name__)

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
        with writing() as session:
            self.beat_in(session, percent=percent, step=step[:200])
        self.check()

    def complete(self, result: Any) -> None:
        """Write the result, which can be written as JSON. Raises `ClaimLost`."""
        with writing() as session:
            self.end_in(session, "completed", result=result, percent=100)

    def fail(self, error: str) -> None:
        """Write that the task failed, and why. Raises `ClaimLost`."""
        with writing() as session:
            self.end_in(session, "failed", error=error)

    def cancelled(self) -> None:
        """Write that the task ended because it was cancelled. Raises `ClaimLost`."""
        with writing() as session:
            self.end_in(session, "cancelled")

    def give_back(self, reason: str) -> None:
        """Let the row wait again, for a message that comes later: a retry. Raises `ClaimLost`.

        If the user has cancelled the task meanwhile, it is cancelled now: that message will find it so.
        """
        with writing() as session:
            self.give_back_in(session, reason)

    def beat(self) -> None:
        """Renew the lease. What is wrong is kept for `check`."""
        with writing() as session:
            self.beat_in(session)

    # Each of these makes its change in a transaction of the caller: services/async_runs.py has others.

    def beat_in(self, session: Session, **progress: Any) -> None:
        """Renew the lease, and write the progress. What is wrong is kept for `check`."""
        mine = _mine(self).values(heartbeat_at=now(session), **progress)
        asked = session.scalars(mine.returning(TaskRecord.cancel_requested)).one_or_none()
        if asked is None:
            self._trouble = ClaimLost(self.task_id)
        elif asked:
            self._trouble = Cancelled(self.task_id)

    def end_in(self, session: Session, status: Status, **values: Any) -> None:
        """Write how the task ended. Raises `ClaimLost`."""
        self._change(session, status=status, finished_at=now(session), **values)

    def give_back_in(self, session: Session, reason: str) -> None:
        """Let the row wait again. Raises `ClaimLost`."""
        asked = TaskRecord.cancel_requested
        self._change(
            session,
            status=case((asked, "cancelled"), else_="pending"),
            finished_at=case((asked, now(session)), else_=null()),
            owner=None,
            heartbeat_at=None,
            step=reason[:200],
        )

    def _change(self, session: Session, **values: Any) -> None:
        if session.scalars(_mine(self).values(**values).returning(TaskRecord.id)).one_or_none() is None:
            raise ClaimLost(self.task_id)


def claim(task_id: str, lease: timedelta = LEASE) -> Run | None:
    """Claim a task for this process. Return None if it has finished: there is nothing to do.

    Raises `BeingRun` if another worker runs it, and `NoSuchTask`.
    """
    with writing() as session:
        return claim_in(session, task_id, lease)


def claim_in(session: Session, task_id: str, lease: timedelta = LEASE) -> Run | None:
    """Do the same in a transaction of the caller."""
    moment = now(session)
    abandoned = and_(TaskRecord.status == "processing", TaskRecord.heartbeat_at < moment - lease)
    free = update(TaskRecord).where(TaskRecord.id == task_id, or_(TaskRecord.status == "pending", abandoned))
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
            try:
                run.beat()
            except SQLAlchemyError as error:  # the lease lasts for some more tries
                log.warning("The heartbeat of task %s was not written: %s", run.task_id, error)

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
        # Whoever cancelled it has what they wanted.
        asked = TaskRecord.cancel_requested
        failed = silent.values(
            status=case((asked, "cancelled"), else_="failed"),
            error=case((asked, null()), else_=LOST),
            finished_at=moment,
        )
        return len(session.scalars(failed.returning(TaskRecord.id)).all())


def _mine(run: Run) -> Update:
    return update(TaskRecord).where(
        TaskRecord.id == run.task_id, TaskRecord.owner == run.owner, TaskRecord.status == "processing"
    )
