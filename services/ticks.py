"""Ticks: which run of the schedule was done last, so that none is done twice.

What to learn here: a message can come twice, beat may start again with an old schedule file, and the schedule
may go on in another process while the broker is away. All of them name the same tick: the time at which the
entry was due. Whoever does it writes that time into the entry's row, *in the transaction of the work itself*.
So both are there, or neither, wherever a process is killed.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.database import now, reading, upsert
from services.models import ScheduleTick

CLOCKS_DIFFER = timedelta(minutes=1)  # by no more, on hosts that set their clocks by a time server


@dataclass(frozen=True)
class Tick:
    """One run of one entry of the schedule. `due` is when it was due."""

    entry: str
    due: datetime


class ClockAhead(ValueError):
    """The tick lies in the future. Written down, it would let no earlier one run."""


def take(session: Session, tick: Tick) -> bool:
    """Write down in this transaction that `tick` is done. Return False if it, or a later one, was done.

    Another transaction that takes the same tick waits for this one to end. Raises `ClockAhead`.
    """
    moment = now(session)
    if tick.due > moment + CLOCKS_DIFFER:
        raise ClockAhead(
            f"{tick.entry}: the tick of {tick.due.isoformat()} is in the future: the database has "
            f"{moment.isoformat()}. Set the clock of the machine that sent it."
        )
    taken = (
        upsert(session, ScheduleTick)
        .values(entry=tick.entry, due=tick.due)
        .on_conflict_do_update(
            index_elements=["entry"], set_={"due": tick.due}, where=ScheduleTick.due < tick.due
        )
    )
    return session.scalars(taken.returning(ScheduleTick.entry)).first() is not None


def last_done() -> dict[str, datetime]:
    """Return when the newest tick that was done was due, for each entry that has one."""
    with reading() as session:
        return {row.entry: row.due for row in session.scalars(select(ScheduleTick))}
