"""How a scheduled job runs: never twice at once, and its work and its tick in one transaction."""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from services import database, ticks
from services.database import writing
from services.leases import held
from services.ticks import Tick

Counts = dict[str, int]
Job = Callable[[Session, datetime], Counts]

# Longer than a job may take (see the time limit in tasks/maintenance_tasks.py). Then its holder is dead.
LEASE = timedelta(seconds=60)


def run(job: Job, tick: Tick | None = None, now: datetime | None = None) -> Counts | None:
    """Do one batch of `job`, and return what it counted; None if `tick` was done already.

    `now` is the time at which the job looks: by default the database's. A job by hand has no tick.

    Raises `LeaseHeld` if another process is at it.
    """
    with held(job.__name__, LEASE), writing() as session:
        if tick and not ticks.take(session, tick):
            return None
        return job(session, now or database.now(session))
