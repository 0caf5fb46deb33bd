"""What users asked for, as rows: written before a message is sent, and changed by whoever runs the task.

What to learn here: the row is the truth, and the message only says "look at the row". A message may be lost,
sent twice or delivered again after its task has finished: each change below is one statement that says which
row it expects, and of two processes one wins. The worker's side is in task_runs.py.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import Update, and_, false, null, or_, select, true, tuple_, update
from sqlalchemy.orm import Session

from services.database import now, reading, upsert, writing
from services.models import TaskRecord

Status = Literal["pending", "processing", "completed", "failed", "cancelled"]
FINISHED: tuple[Status, ...] = ("completed", "failed", "cancelled")
MAX_PAGE = 100


class NoSuchTask(LookupError):
    """No task of this user has the id. A task of another user does not exist either, for who asks."""


class KeyReused(ValueError):
    """The same idempotency key came with another task or other arguments."""


class WrongStatus(ValueError):
    """The task's status does not allow what was asked."""


@dataclass(frozen=True)
class Wanted:
    """A task that a user wants: its name, what it gets beside the row's id, and the key of the request."""

    task: str
    arguments: dict[str, Any]
    user_id: str
    idempotency_key: str | None = None


@dataclass(frozen=True)
class Created:
    """A row, and whether this call made it: False if its idempotency key was there already."""

    record: TaskRecord
    is_new: bool


def create(task: str, arguments: dict[str, Any], user_id: str, idempotency_key: str | None = None) -> Created:
    """Write a row for a task that is to run. A dispatcher sends its message.

    `task` is the task's name, `arguments` what it gets beside the row's id. The same `idempotency_key` of the
    same user gives the row that is there, so a client that got no answer may ask again.

    Raises `KeyReused` if that row has another task or other arguments.
    """
    [created] = create_all([Wanted(task, arguments, user_id, idempotency_key)])
    if isinstance(created, KeyReused):
        raise created
    return created


def create_all(wanted: Sequence[Wanted]) -> list[Created | KeyReused]:
    """Write the rows of several requests in one transaction: it costs hardly more than that of one.

    Return for each what `create` returns or raises, in their order.
    """
    with writing() as session:
        moment = now(session)
        rows = [{"id": str(uuid.uuid4()), "created_at": moment, **vars(one)} for one in wanted]
        insert = upsert(session, TaskRecord).on_conflict_do_nothing().returning(TaskRecord)
        new = {record.id: record for record in session.scalars(insert, rows)}
        return [
            Created(new[row["id"]], is_new=True) if row["id"] in new else _found(session, one)
            for row, one in zip(rows, wanted, strict=True)
        ]


def _found(session: Session, wanted: Wanted) -> Created | KeyReused:
    """Return the row that has the key of `wanted` already."""
    key = wanted.idempotency_key
    same = TaskRecord.user_id == wanted.user_id, TaskRecord.idempotency_key == key
    old = session.scalars(select(TaskRecord).where(*same)).one()
    if (old.task, old.arguments) == (wanted.task, wanted.arguments):
        return Created(old, is_new=False)
    return KeyReused(
        f"Idempotency-Key {key!r} belongs to task {old.id}, with another request. "
        "Use a new key for a new request."
    )


def find(task_id: str, user_id: str | None = None) -> TaskRecord:
    """Return a row, of this user if one is named. Raises `NoSuchTask`."""
    with reading() as session:
        return _find(session, task_id, user_id)


def page(
    user_id: str, limit: int = 20, before: str | None = None, status: Status | None = None
) -> Sequence[TaskRecord]:
    """Return up to `limit` rows of a user, newest first, older than the row `before`.

    A page by position would repeat rows when new ones arrive meanwhile. Raises `NoSuchTask` for `before`.
    """
    rows = select(TaskRecord).where(TaskRecord.user_id == user_id)
    if status:
        rows = rows.where(TaskRecord.status == status)
    with reading() as session:
        if before is not None:
            last = _find(session, before, user_id)
            rows = rows.where(tuple_(TaskRecord.created_at, TaskRecord.id) < (last.created_at, last.id))
        newest = rows.order_by(TaskRecord.created_at.desc(), TaskRecord.id.desc())
        return session.scalars(newest.limit(min(limit, MAX_PAGE))).all()


def request_cancel(task_id: str, user_id: str | None = None) -> TaskRecord:
    """Cancel a task that waits; ask the worker to end one that runs. Return the row.

    The worker sees it at its next heartbeat. Raises `NoSuchTask`, and `WrongStatus` if it has finished.
    """
    with writing() as session:
        _find(session, task_id, user_id)
        waiting = _change(task_id).where(TaskRecord.status == "pending")
        _execute(session, waiting.values(status="cancelled", finished_at=now(session)))
        _execute(
            session, _change(task_id).where(TaskRecord.status == "processing").values(cancel_requested=true())
        )
        record = _find(session, task_id, user_id)
        if record.status in FINISHED and record.status != "cancelled":
            raise WrongStatus(f"Task {task_id} is {record.status}: there is nothing left to cancel.")
        return record


def replay(task_id: str, user_id: str | None = None) -> TaskRecord:
    """Let a failed or cancelled task run again, under the same id. Return the row.

    Raises `NoSuchTask`, and `WrongStatus` if it is in another state.
    """
    with writing() as session:
        before = _find(session, task_id, user_id)
        again = _change(task_id).where(TaskRecord.status.in_(("failed", "cancelled")))
        anew = {"percent": 0, "step": "", "error": null(), "finished_at": null(), "cancel_requested": false()}
        unsent = {"dispatched_at": null(), "dispatch_until": null(), "owner": null(), "heartbeat_at": null()}
        if not _execute(session, again.values(status="pending", **anew, **unsent)):
            raise WrongStatus(
                f"Task {task_id} is {before.status}: only a failed or cancelled one is run again."
            )
        return _find(session, task_id, user_id)


# --- The outbox -----------------------------------------------------------------------------------------


def take_unsent(limit: int, lease: timedelta) -> Sequence[TaskRecord]:
    """Return up to `limit` rows whose messages must be sent, oldest first. Until `lease` ends they are ours.

    Of two dispatchers, each gets other rows. If we die, another one gets ours after the lease.
    """
    with writing() as session:
        moment = now(session)
        free = or_(TaskRecord.dispatch_until.is_(None), TaskRecord.dispatch_until < moment)
        unsent = select(TaskRecord.id).where(
            TaskRecord.dispatched_at.is_(None), TaskRecord.status == "pending", free
        )
        # On PostgreSQL two dispatchers do not wait for each other. SQLite has one writer at a time anyway.
        ours = unsent.order_by(TaskRecord.created_at).limit(limit).with_for_update(skip_locked=True)
        taken = update(TaskRecord).where(TaskRecord.id.in_(ours.scalar_subquery()))
        rows = session.scalars(taken.values(dispatch_until=moment + lease).returning(TaskRecord)).all()
        return sorted(rows, key=lambda row: row.created_at)


def mark_sent(task_ids: Collection[str]) -> None:
    """Write down that the messages of these rows have been sent."""
    with writing() as session:
        _execute(session, _unsent(task_ids).values(dispatched_at=now(session), dispatch_until=null()))


def give_back_unsent(task_ids: Collection[str]) -> None:
    """Give rows back whose messages were not sent: any dispatcher may take them at once."""
    with writing() as session:
        _execute(session, _unsent(task_ids).values(dispatch_until=null()))


def _unsent(task_ids: Collection[str]) -> Update:
    return update(TaskRecord).where(TaskRecord.id.in_(task_ids), TaskRecord.dispatched_at.is_(None))


def _change(task_id: str) -> Update:
    return update(TaskRecord).where(TaskRecord.id == task_id)


def _execute(session: Session, change: Update) -> int:
    """Make a change and return how many rows it met."""
    changed = session.execute(
        change.returning(TaskRecord.id), execution_options={"synchronize_session": False}
    )
    return len(changed.all())


def _find(session: Session, task_id: str, user_id: str | None) -> TaskRecord:
    conditions = [TaskRecord.id == task_id]
    if user_id is not None:
        conditions.append(TaskRecord.user_id == user_id)
    found = select(TaskRecord).where(and_(*conditions)).execution_options(populate_existing=True)
    record = session.scalars(found).one_or_none()
    if record is None:
        raise NoSuchTask(f"No task has the id {task_id!r}.")
    return record
