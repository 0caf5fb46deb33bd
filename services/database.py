"""The database: its tables, one engine per process, transactions, and migrations.

SQLite by default, PostgreSQL by DATABASE_URL; the code above this module is the same for both. A pool of
worker processes shares one database, so read here what that takes: an engine that is never carried
through a fork, and short write transactions that wait for each other instead of failing.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Engine,
    ExceptionContext,
    ForeignKey,
    Index,
    MetaData,
    Numeric,
    String,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from settings import ROOT, settings

BUSY_SECONDS = 30  # how long a writer waits for another process's write transaction on SQLite


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite keeps no time zone: what comes back from there gets it again."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time: nobody can say which moment it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; pass an aware datetime, as datetime.now(UTC) is")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment as an aware datetime in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """What all tables share: types, and names of constraints. A migration can change only what has a name."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, Decimal: Numeric(12, 2)}  # noqa: RUF012 - SQLAlchemy's own form


class Order(Base):
    """One order of the shop. `order_id` is the shop's own key: importing an order again replaces it."""

    __tablename__ = "orders"

    order_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    customer: Mapped[str] = mapped_column(String(200))
    email: Mapped[str] = mapped_column(String(254))
    country: Mapped[str] = mapped_column(String(2))
    product: Mapped[str] = mapped_column(String(200))
    quantity: Mapped[int]
    unit_price: Mapped[Decimal]
    ordered_at: Mapped[datetime] = mapped_column(index=True)


class Import(Base):
    """How far the import of one byte range of one file has come.

    The row changes in the same transaction as the orders it counts. So after a crash it says exactly which
    orders are in, and a redelivered task goes on from `next_byte`. Who empties `orders` by hand must empty
    this table too.
    """

    __tablename__ = "imports"
    __table_args__ = (UniqueConstraint("path", "first_byte", "end_byte"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str]
    first_byte: Mapped[int] = mapped_column(BigInteger)
    end_byte: Mapped[int] = mapped_column(BigInteger)
    fingerprint: Mapped[str]
    owner: Mapped[str]
    next_byte: Mapped[int] = mapped_column(BigInteger)
    next_line: Mapped[int] = mapped_column(BigInteger)
    imported: Mapped[int] = mapped_column(default=0)
    rejected: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class Reject(Base):
    """One reason why one row of a file was not imported. `line` is the first line of the row."""

    __tablename__ = "rejects"
    __table_args__ = (Index("ix_rejects_import_id", "import_id", "line"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    import_id: Mapped[int] = mapped_column(ForeignKey("imports.id", ondelete="CASCADE"))
    line: Mapped[int] = mapped_column(BigInteger)
    column: Mapped[str]
    value: Mapped[str]
    reason: Mapped[str]


def engine() -> Engine:
    """Return this process's engine for the database of the settings. It connects when it is first used.

    Raises `ModuleNotFoundError` if the driver is not installed.
    """
    # The process id is part of the key: a forked worker must not talk over its parent's connections.
    return _engine(settings.database, os.getpid())


@cache
def _engine(url: str, pid: int) -> Engine:
    if url.startswith("sqlite"):
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        new = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        event.listen(new, "connect", _prepare_sqlite)
    else:
        try:
            # UTC for the session: `date(ordered_at)` is then the day in UTC, as it is on SQLite.
            new = create_engine(url, connect_args={"connect_timeout": 5, "options": "-c timezone=UTC"})
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"DATABASE_URL needs the driver {error.name!r}. Install it with `uv sync --group postgres`."
            ) from error
    event.listen(new, "handle_error", _explain_missing_tables)
    return new


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # A write-ahead log lets readers go on while one process writes.
    connection.execute("PRAGMA journal_mode = WAL")
    # Safe in WAL mode: a power cut may undo the last transactions as a whole, never half of one.
    connection.execute("PRAGMA synchronous = NORMAL")


def _explain_missing_tables(context: ExceptionContext) -> None:
    error = context.original_exception
    # The codes are PostgreSQL's for a table and a column that do not exist.
    missing = getattr(error, "sqlstate", None) in ("42P01", "42703") or str(error).startswith("no such ")
    if missing:
        raise RuntimeError(f"{error}. The tables are not up to date: run `alembic upgrade head`") from error


@contextmanager
def writing() -> Iterator[Session]:
    """Open a transaction that writes. It commits at the end of the block, and rolls back after an error."""
    with Session(engine(), expire_on_commit=False) as session, session.begin():
        if engine().dialect.name == "sqlite":
            # SQLite has one writer at a time. Asking for the lock at once means waiting for it; a reader
            # that later wants to write does not wait but fails with "database is locked".
            session.execute(text("BEGIN IMMEDIATE"))
        yield session


@contextmanager
def reading() -> Iterator[Session]:
    """Open a transaction that only reads. All queries of the block see the database as of one moment."""
    with Session(engine(), expire_on_commit=False) as session, session.begin():
        if engine().dialect.name == "sqlite":
            session.execute(text("BEGIN"))
        else:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        yield session


def migrate() -> None:
    """Bring the tables up to date. Several processes may do so at once: one works, the others wait."""
    from alembic import command  # here, because a worker that finds its tables need not load Alembic
    from alembic.config import Config

    command.upgrade(Config(toml_file=ROOT / "pyproject.toml"), "head")
