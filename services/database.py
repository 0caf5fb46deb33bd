"""The database: one engine per process, transactions, and migrations. Its tables are in models.py.

SQLite by default, PostgreSQL by DATABASE_URL; the code above this module is the same for both. A pool of
worker processes shares one database, so read here what that takes: an engine that is never carried
through a fork, and short write transactions that wait for each other instead of failing.
"""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from functools import cache
from typing import TypeVar

from sqlalchemy import Engine, ExceptionContext, create_engine, event, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from services.models import Base, UtcDateTime
from services.per_loop import per_loop
from settings import ROOT, settings

AnyEngine = TypeVar("AnyEngine", Engine, AsyncEngine)

FETCH_ROWS = 2_000  # rows that a query over a large table holds in memory at once
BUSY_SECONDS = 30  # how long a writer waits for another process's write transaction on SQLite


def engine() -> Engine:
    """Return this process's engine for the database of the settings. It connects when it is first used.

    Raises `ModuleNotFoundError` if the driver is not installed.
    """
    # The process id is part of the key: a forked worker must not talk over its parent's connections.
    return _engine(settings.database, os.getpid())


@cache
def _engine(url: str, pid: int) -> Engine:
    return _with_listeners(_create(create_engine, url))


def async_engine() -> AsyncEngine:
    """Return the same engine for code that awaits: one for each event loop, and so for each process."""
    return _async_engine(settings.database.replace("sqlite:", "sqlite+aiosqlite:", 1))


@per_loop
def _async_engine(url: str) -> AsyncEngine:
    new = _create(create_async_engine, url)
    _with_listeners(new.sync_engine)
    return new


def _create(create: Callable[..., AnyEngine], url: str) -> AnyEngine:
    if url.startswith("sqlite"):
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        return create(url, connect_args={"timeout": BUSY_SECONDS})
    try:
        # UTC for the session: `date(ordered_at)` is then the day in UTC, as it is on SQLite.
        options = {"connect_timeout": 5, "options": "-c timezone=UTC"}
        # The ping replaces a connection that a restart of the server has closed.
        return create(url, connect_args=options, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"DATABASE_URL needs the driver {error.name!r}. Install it with `uv sync --group postgres`."
        ) from error


def _with_listeners(engine: Engine) -> Engine:
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "handle_error", _explain_missing_tables)
    return engine


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


@asynccontextmanager
async def async_writing() -> AsyncIterator[AsyncSession]:
    """Open a transaction that writes, as `writing` does, on the engine of this event loop."""
    async with AsyncSession(async_engine(), expire_on_commit=False) as session, session.begin():
        if async_engine().dialect.name == "sqlite":
            await session.execute(text("BEGIN IMMEDIATE"))
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


def upsert(session: Session, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT into `table` that can say ON CONFLICT, for the database of `session`.

    Both databases have it. SQLAlchemy has it for each of them.
    """
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    return sqlite.insert(table) if is_sqlite else postgresql.insert(table)


def now(session: Session) -> datetime:
    """Return the time of the database: one clock for all hosts. It has milliseconds on SQLite, too."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    clock = (
        func.strftime("%Y-%m-%d %H:%M:%f000", "now", type_=UtcDateTime)
        if is_sqlite
        else func.now(type_=UtcDateTime)
    )
    return session.scalars(select(clock)).one()


def migrate() -> None:
    """Bring the tables up to date. Several processes may do so at once: one works, the others wait."""
    from alembic import command  # here, because a worker that finds its tables need not load Alembic
    from alembic.config import Config

    command.upgrade(Config(toml_file=ROOT / "pyproject.toml"), "head")
