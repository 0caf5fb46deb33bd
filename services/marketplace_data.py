"""A marketplace of any size, made inside the database: the same rows for the same seed.

One INSERT … SELECT makes a table, so a million rows take seconds and no memory here. The numbers are spread
by a multiplication and a remainder: even, the same on every database, and not random in any other sense.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Interval,
    case,
    cast,
    func,
    insert,
    literal,
    null,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session

from services import database
from services.database import engine, writing
from services.marketplace_models import (
    Activity,
    Agent,
    Chat,
    Coupon,
    Expert,
    InvitationCode,
    MarketTask,
    PointGrant,
    User,
)
from services.models import Base, UtcDateTime

# A prime and a generator of its numbers: (number * 48271) % PRIME meets each of them once.
# Park and Miller, "Random number generators: good ones are hard to find", 1988; and the answer of 1993.
PRIME, MULTIPLIER = 2_147_483_647, 48_271
DAY = 86_400
MINUTE = 60


@dataclass
class _Rows:
    """Expressions for the columns of generated rows, whose numbers go from 1 to the size of the table."""

    session: Session
    number: ColumnElement[int]
    seed: int
    now: datetime
    salt: int = 0

    def spread(self, first: int, end: int) -> ColumnElement[int]:
        """Give each row a number from `first` to `end`, without `end`. Each call another one."""
        self.salt += 1
        start = (self.number + self.seed * 1_000_003) % PRIME
        mixed = start * (MULTIPLIER + 2 * self.salt) % PRIME
        return first + mixed % (end - first)

    def moment(self, first: int, end: int) -> ColumnElement[datetime]:
        """Give each row a time from `first` to `end` seconds after now: before now if negative."""
        seconds = self.spread(first, end)
        if self.session.get_bind().dialect.name == "sqlite":
            now = self.now.strftime("%Y-%m-%d %H:%M:%f")[:-3]
            later = func.strftime("%Y-%m-%d %H:%M:%f000", now, seconds.concat(" seconds"), type_=UtcDateTime)
            return later
        return literal(self.now, UtcDateTime) + seconds * literal(timedelta(seconds=1), Interval)

    def one_of(self, **shares: int) -> ColumnElement[str]:
        """Give each row one of these texts, with these shares of a thousand."""
        number, upto, cases = self.spread(0, 1000), 0, []
        for value, share in shares.items():
            upto += share
            cases.append((number < upto, value))
        return case(*cases)


def generate(rows: int, seed: int = 1, now: datetime | None = None) -> dict[str, int]:
    """Fill an empty marketplace, and return how many rows each table has got.

    `rows` is the size of the large tables: chats, tasks, coupons, invitations, points. There are a tenth as
    many users. `now` is when the marketplace is looked at: about one row in a thousand is due then.

    Raises `ValueError` if `rows` is below 1.
    """
    if rows < 1:
        raise ValueError(f"rows={rows}: must be 1 or more")
    users, experts, agents = max(1, rows // 10), max(1, rows // 1000), max(1, rows // 10_000)
    sizes = {
        User: users,
        Expert: experts,
        Agent: agents,
        Activity: max(1, rows // 1000),
        MarketTask: rows,
        Coupon: rows,
        InvitationCode: rows,
        PointGrant: rows,
        Chat: rows,
    }
    with writing() as session:
        moment = (now or database.now(session)).replace(microsecond=0)
        for table, size in sizes.items():
            number = _numbers(size)
            row = _Rows(session, number.c.n, seed, moment)
            columns = {"id": number.c.n, **_columns(table, row, users, experts, agents)}
            session.execute(insert(table).from_select(list(columns), select(*columns.values())))
        session.execute(_balances())
        if session.get_bind().dialect.name == "postgresql":
            _move_sequences(session, list(sizes))
    with engine().connect() as connection:
        connection.execute(text("ANALYZE"))  # the planner must know how many rows there are
        connection.commit()
    return {table.__tablename__: size for table, size in sizes.items()}


def _numbers(size: int) -> Any:
    numbers = select(literal(1, BigInteger).label("n")).cte("numbers", recursive=True)
    return numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < size))


def _columns(table: type[Base], row: _Rows, users: int, experts: int, agents: int) -> dict[str, Any]:
    """Return an expression for each column of a generated row of `table`."""
    spread, moment, one_of = row.spread, row.moment, row.one_of
    user = {"user_id": spread(1, users + 1)}
    if table is User:
        return {
            "joined_at": moment(-365 * DAY, 0),
            "points": literal(0),
            "is_stale": spread(0, 100) < 1,
            "open_tasks": literal(0),
            "completed_tasks": literal(0),
            "spent": literal(0),
        }
    if table is Expert:
        return {"is_featured": spread(0, 10) < 2}
    if table is Agent:
        return {"is_online": spread(0, 10) < 8, "capacity": spread(1, 6)}
    if table is Activity:
        status = one_of(planned=200, running=100, ended=700)
        return {
            "status": status,
            "starts_at": case((status == "planned", moment(-MINUTE, 30 * DAY)), else_=moment(-90 * DAY, 0)),
            "ends_at": case((status == "ended", moment(-30 * DAY, 0)), else_=moment(-DAY, 60 * DAY)),
        }
    if table is MarketTask:
        status = one_of(open=50, completed=850, cancelled=100)
        closed = case((status == "open", null()), else_=moment(-179 * DAY - 3600, 0))
        return user | {
            "expert_id": spread(1, experts + 1),
            "status": status,
            "price": spread(5, 500),
            "created_at": moment(-180 * DAY, 0),
            "deadline": moment(-DAY // 2, 30 * DAY),
            "answered_after": spread(30, 7200),
            "closed_at": closed,
        }
    if table is Chat:
        status = one_of(waiting=1, active=1, ended=998)
        silent_since = case((status == "ended", moment(-30 * DAY - 900, 0)), else_=moment(-15 * MINUTE, 0))
        return user | {
            "agent_id": case((status == "active", spread(1, agents + 1)), else_=null()),
            "status": status,
            "created_at": moment(-30 * DAY, 0),
            "last_message_at": silent_since,
        }
    points = {"points": spread(1, 100), **user} if table is PointGrant else {}
    status = one_of(active=300, used=500, expired=200)
    # Of the active ones, about one in a thousand has run out.
    expires = case((status == "active", moment(-3600, 41 * DAY)), else_=moment(-300 * DAY, 0))
    return points | {"status": status, "expires_at": expires}


def _balances() -> Any:
    total = (
        select(PointGrant.user_id, func.sum(PointGrant.points).label("points"))
        .where(PointGrant.status == "active")
        .group_by(PointGrant.user_id)
        .subquery()
    )
    return (
        update(User)
        .where(User.id == total.c.user_id)
        .values(points=cast(total.c.points, Integer))
        .execution_options(synchronize_session=False)
    )


def _move_sequences(session: Session, tables: list[type[Base]]) -> None:
    """Let PostgreSQL number the next rows after those that were made."""
    for table in tables:
        name = table.__tablename__
        last = select(func.max(text("id"))).select_from(text(name)).scalar_subquery()
        session.execute(select(func.setval(func.pg_get_serial_sequence(name, "id"), last)))
