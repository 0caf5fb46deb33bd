"""Leases: something that one process at a time may do, wherever the processes run.

What to learn here: a lock whose holder is killed must become free by itself. A lease ends at a time of the
database's clock. It is taken by one statement that says which row it expects, so of two processes one wins.
A holder that was slow may find that another one has the lease now: it gives back only what is still its own.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import and_, delete, or_, select

from services.database import now, upsert, writing
from services.models import Lease


class LeaseHeld(Exception):
    """Another process has the lease. `seconds` is how long it still may."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(name, seconds)  # both, so that it can be unpickled
        self.seconds = seconds

    def __str__(self) -> str:
        name, seconds = self.args
        return f"{name}: another process is at it, or died at it less than a lease ago ({seconds:.0f} s left)"


def take(name: str, lease: timedelta, owner: str) -> None:
    """Take the lease `name` for `owner`, or renew it if it is `owner`'s already. Raises `LeaseHeld`."""
    with writing() as session:
        moment = now(session)
        row = {"owner": owner, "until": moment + lease}
        taken = (
            upsert(session, Lease)
            .values(name=name, **row)
            .on_conflict_do_update(
                index_elements=["name"],
                set_=row,
                where=or_(Lease.until <= moment, Lease.owner == owner),
            )
        )
        if session.scalars(taken.returning(Lease.owner)).first():
            return
        until = session.scalar(select(Lease.until).where(Lease.name == name))
    raise LeaseHeld(name, (until - moment).total_seconds() if until else 0)


def give_back(name: str, owner: str) -> None:
    """Make the lease free, if it is still `owner`'s."""
    with writing() as session:
        session.execute(delete(Lease).where(and_(Lease.name == name, Lease.owner == owner)))


@contextmanager
def held(name: str, lease: timedelta) -> Iterator[None]:
    """Hold the lease `name` while the block runs. Raises `LeaseHeld` if another process has it."""
    owner = uuid.uuid4().hex
    take(name, lease, owner)
    try:
        yield
    finally:
        give_back(name, owner)
