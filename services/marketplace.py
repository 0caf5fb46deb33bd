"""The marketplace's jobs on what runs out: tasks, coupons, invitations, points, activities. And old rows.

What to learn here: a job is one statement that finds its rows by an index and changes a limited number of
them. It reads no row into Python that it does not need. So it takes as long for a million rows as for ten
thousand, and a backlog is worked off batch by batch: `more` is 1 if there is still something to do.

Each job gets a transaction and the time. Run again, it finds nothing. services/jobs.py runs it.
"""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, case, delete, or_, select, true, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from services.jobs import Counts
from services.marketplace_models import (
    Activity,
    Chat,
    Coupon,
    InvitationCode,
    MarketTask,
    PointGrant,
    User,
)

BATCH = 10_000  # rows that one run changes: well under a second, and no long lock
OLD_CHAT = timedelta(days=30)
OLD_TASK = timedelta(days=180)

_NO_SYNC = {"synchronize_session": False}


def change(session: Session, statement: Any, *returned: Any) -> list[Any]:
    """Run an UPDATE or DELETE, and return `returned` of each row that it met."""
    return list(session.execute(statement.returning(*returned), execution_options=_NO_SYNC).all())


def batch(key: InstrumentedAttribute[int], condition: ColumnElement[bool], order: Any) -> Select[tuple[int]]:
    """Return a query for the keys of the rows of one batch. Other transactions wait for them."""
    return select(key).where(condition).order_by(order, key).limit(BATCH).with_for_update()


def more(session: Session, condition: ColumnElement[bool]) -> int:
    """Return 1 if there is still a row that fits, and 0 if not."""
    return int(session.scalar(select(select(1).where(condition).exists())) or False)


# --- What runs out --------------------------------------------------------------------------------------


def cancel_expired_tasks(session: Session, now: datetime) -> Counts:
    """Cancel open tasks after their deadline. Their users' statistics become stale."""
    due = and_(MarketTask.status == "open", MarketTask.deadline <= now)
    cancel = update(MarketTask).where(MarketTask.id.in_(batch(MarketTask.id, due, MarketTask.deadline)))
    users = change(session, cancel.values(status="cancelled", closed_at=now), MarketTask.user_id)
    stale = update(User).where(User.id.in_({row.user_id for row in users}))
    session.execute(stale.values(is_stale=true()), execution_options=_NO_SYNC)
    return {"cancelled": len(users), "more": more(session, due)}


def check_expired_coupons(session: Session, now: datetime) -> Counts:
    """Let coupons expire."""
    return _expire(session, Coupon, now)


def check_expired_invitation_codes(session: Session, now: datetime) -> Counts:
    """Let invitation codes expire."""
    return _expire(session, InvitationCode, now)


def _expire(session: Session, table: type[Coupon] | type[InvitationCode], now: datetime) -> Counts:
    due = and_(table.status == "active", table.expires_at <= now)
    expire = update(table).where(table.id.in_(batch(table.id, due, table.expires_at)))
    expired = change(session, expire.values(status="expired"), table.id)
    return {"expired": len(expired), "more": more(session, due)}


def check_expired_points(session: Session, now: datetime) -> Counts:
    """Let points expire, and take them from their users' balances."""
    due = and_(PointGrant.status == "active", PointGrant.expires_at <= now)
    expire = update(PointGrant).where(PointGrant.id.in_(batch(PointGrant.id, due, PointGrant.expires_at)))
    rows = change(session, expire.values(status="expired"), PointGrant.user_id, PointGrant.points)
    lost: Counter[int] = Counter()
    for user_id, points in rows:
        lost[user_id] += points
    if lost:
        # In the order of the keys: two transactions that change the same users do not wait for each other.
        subtract = update(User.__table__).where(User.id == bindparam("user"))  # type: ignore[arg-type]
        session.connection().execute(
            subtract.values(points=User.points - bindparam("lost")),
            [{"user": user_id, "lost": lost[user_id]} for user_id in sorted(lost)],
        )
    return {"expired": len(rows), "points": lost.total(), "users": len(lost), "more": more(session, due)}


def check_and_end_activities(session: Session, now: datetime) -> Counts:
    """Start planned activities, and end those whose time is over: a planned one, too, that was missed."""
    starts = and_(Activity.status == "planned", Activity.starts_at <= now)
    ends = and_(Activity.status == "running", Activity.ends_at <= now)
    status = case((Activity.ends_at <= now, "ended"), else_="running")
    due = or_(starts, ends)
    begin = update(Activity).where(Activity.id.in_(batch(Activity.id, due, Activity.starts_at)))
    found = Counter(row.status for row in change(session, begin.values(status=status), Activity.status))
    return {"started": found["running"], "ended": found["ended"], "more": more(session, due)}


# --- Old rows -------------------------------------------------------------------------------------------


def cleanup_long_inactive_chats(session: Session, now: datetime) -> Counts:
    """Delete ended chats in which nobody wrote for 30 days. Their messages go with them."""
    old = and_(Chat.status == "ended", Chat.last_message_at < now - OLD_CHAT)
    remove = delete(Chat).where(Chat.id.in_(batch(Chat.id, old, Chat.last_message_at)))
    return {"deleted": len(change(session, remove, Chat.id)), "more": more(session, old)}


def cleanup_old_tasks(session: Session, now: datetime) -> Counts:
    """Delete tasks that were cancelled 180 days ago. Completed ones stay: the statistics count them."""
    old = and_(MarketTask.status == "cancelled", MarketTask.closed_at < now - OLD_TASK)
    remove = delete(MarketTask).where(MarketTask.id.in_(batch(MarketTask.id, old, MarketTask.closed_at)))
    return {"deleted": len(change(session, remove, MarketTask.id)), "more": more(session, old)}
