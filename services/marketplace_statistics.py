"""The marketplace's statistics, each computed from the rows that it is about, never counted up.

A number that a job counts up is wrong for ever after one lost or repeated run. One that is computed anew is
right again after the next run.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Integer, ScalarSelect, case, cast, false, func, select, update
from sqlalchemy.orm import Session

from services.database import upsert
from services.jobs import Counts
from services.marketplace import batch, change, more
from services.marketplace_models import Chat, Expert, HourlyStatistics, MarketTask, User

RESPONSE_PERIOD = timedelta(days=30)
HOUR = timedelta(hours=1)
HOURS_BACK = 24  # so many missing hours are made up for


def update_all_users_statistics(session: Session, now: datetime) -> Counts:
    """Count the tasks and the spending of all users for whom something has changed."""
    users = batch(User.id, User.is_stale, User.id).subquery()
    is_completed = MarketTask.status == "completed"
    counted = (
        select(
            users.c.id,
            func.count(case((MarketTask.status == "open", 1))).label("open_tasks"),
            func.count(case((is_completed, 1))).label("completed_tasks"),
            func.coalesce(func.sum(case((is_completed, MarketTask.price))), 0).label("spent"),
        )
        .outerjoin(MarketTask, MarketTask.user_id == users.c.id)
        .group_by(users.c.id)
        .subquery()
    )
    columns = ("open_tasks", "completed_tasks", "spent")
    write = update(User).where(User.id == counted.c.id)
    values = write.values(is_stale=false(), **{name: counted.c[name] for name in columns})
    return {"updated": len(change(session, values, User.id)), "more": more(session, User.is_stale)}


def update_featured_task_experts_response_time(session: Session, now: datetime) -> Counts:
    """Write how many seconds each featured expert took to answer, on average over 30 days."""
    average = (
        select(cast(func.round(func.avg(MarketTask.answered_after)), Integer))
        .where(MarketTask.expert_id == Expert.id, MarketTask.created_at > now - RESPONSE_PERIOD)
        .where(MarketTask.created_at <= now)
        .scalar_subquery()
    )
    write = update(Expert).where(Expert.is_featured, Expert.response_seconds.is_distinct_from(average))
    return {"updated": len(change(session, write.values(response_seconds=average), Expert.id))}


def generate_hourly_stats(session: Session, now: datetime) -> Counts:
    """Write a row for the hour that has ended, and for each missing one of the 24 hours before.

    Hours are counted in UTC: there each has 60 minutes and happens once, also when the clocks change.
    """
    ended = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    hours = {ended - HOUR * number for number in range(1, HOURS_BACK + 1)}
    there = select(HourlyStatistics.hour).where(HourlyStatistics.hour >= min(hours))
    missing = sorted(hours - set(session.scalars(there)))
    for hour in missing:
        row = upsert(session, HourlyStatistics).values(hour=hour, **_events_of(hour))
        session.execute(row.on_conflict_do_nothing())
    return {"written": len(missing)}


def _events_of(hour: datetime) -> dict[str, ScalarSelect[Any]]:
    """Return a query for each number of an hour."""
    moments = {
        "new_users": User.joined_at,
        "new_tasks": MarketTask.created_at,
        "closed_tasks": MarketTask.closed_at,
        "new_chats": Chat.created_at,
    }
    return {
        name: select(func.count()).where(moment >= hour, moment < hour + HOUR).scalar_subquery()
        for name, moment in moments.items()
    }
