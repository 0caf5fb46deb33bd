"""The tables come from migrations, and processes that share the database do not get in each other's way."""

import multiprocessing
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, func, inspect, select, text
from sqlalchemy.exc import StatementError

from services.database import engine, migrate, reading, writing
from services.models import Base, Order
from settings import ROOT, Settings, settings

FORK = multiprocessing.get_context("fork")
CONFIG = Config(toml_file=ROOT / "pyproject.toml")


def order(number: int, **changed: Any) -> Order:
    values = {
        "order_id": f"ORD-{number}",
        "customer": "Ada",
        "email": "ada@example.com",
        "country": "GB",
        "product": "Blue mug",
        "quantity": 1,
        "unit_price": Decimal("8.40"),
        "ordered_at": datetime(2026, 10, 3, tzinfo=UTC),
    }
    return Order(**(values | changed))


def in_processes(count: int, work: Callable[[int], None]) -> None:
    """Run `work` in `count` forked processes at once, and fail if one of them fails."""
    barrier = FORK.Barrier(count)

    def start(number: int) -> None:
        barrier.wait(timeout=30)
        work(number)

    processes = [FORK.Process(target=start, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * count


def test_the_migrations_make_exactly_the_tables_of_the_code(any_shop: Path):
    with engine().connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_migrate_may_run_again(any_shop: Path):
    migrate()
    newest = ScriptDirectory.from_config(CONFIG).get_current_head()
    with reading() as session:
        assert session.scalars(text("SELECT version_num FROM alembic_version")).all() == [newest]


def test_the_migrations_can_be_taken_back(any_shop: Path):
    command.downgrade(CONFIG, "base")
    assert inspect(engine()).get_table_names() == ["alembic_version"]
    migrate()
    assert "orders" in inspect(engine()).get_table_names()


def test_orders_survive_the_migrations_in_both_directions(any_shop: Path):
    with writing() as session:
        session.add(order(1, unit_price=Decimal("0.10")))
    for _ in range(2):
        command.downgrade(CONFIG, "0001")
        migrate()
        with reading() as session:
            stored = session.scalars(select(Order)).one()
            assert (stored.order_id, stored.unit_price, stored.import_number) == ("ORD-1", Decimal("0.10"), 0)
        with engine().connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_migrate_in_several_processes_at_once_works_once(any_shop: Path):
    Base.metadata.drop_all(engine())
    with writing() as session:
        session.execute(text("DROP TABLE alembic_version"))
    in_processes(4, lambda number: migrate())
    assert {"orders", "imports", "rejects"} <= set(inspect(engine()).get_table_names())


def test_no_table_is_made_outside_migrations(any_shop: Path):
    Base.metadata.drop_all(engine())
    with pytest.raises(RuntimeError, match="run `alembic upgrade head`"), reading() as session:
        session.scalar(select(func.count()).select_from(Order))


def test_a_forked_process_uses_an_engine_of_its_own(any_shop: Path):
    with writing() as session:
        session.add(order(0))  # the parent's pool holds a connection now
    parent = id(engine())

    def write(number: int) -> None:
        if id(engine()) == parent:
            raise SystemExit("the parent's engine came through the fork")
        for n in range(20):
            with writing() as session:
                session.add(order(1 + number * 20 + n))

    in_processes(4, write)
    with reading() as session:
        assert session.scalar(select(func.count()).select_from(Order)) == 81


def test_a_reader_sees_one_moment_while_another_process_writes(any_shop: Path):
    with reading() as session:
        count = select(func.count()).select_from(Order)
        assert session.scalar(count) == 0

        def write(number: int) -> None:
            with writing() as session:
                session.add(order(number))

        in_processes(1, write)
        assert session.scalar(count) == 0
    with reading() as session:
        assert session.scalar(count) == 1


def test_connections_that_the_server_has_closed_are_replaced(any_shop: Path):
    with reading() as session:
        session.execute(select(1))  # the pool keeps a connection from now on
    if engine().dialect.name == "postgresql":  # a restart of the server does the same
        other = create_engine(settings.database)
        with other.connect() as connection:
            mine = "datname = current_database() AND pid <> pg_backend_pid()"
            connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}"))
        other.dispose()
    with reading() as session:
        assert session.scalar(select(func.count()).select_from(Order)) == 0


def test_an_error_in_a_transaction_leaves_nothing(any_shop: Path):
    def fail_half_way() -> None:
        with writing() as session:
            session.add(order(1))
            session.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    with reading() as session:
        assert session.scalar(select(func.count()).select_from(Order)) == 0


def test_a_moment_comes_back_in_utc_and_a_price_exactly(any_shop: Path):
    there = timezone(timedelta(hours=8))
    with writing() as session:
        session.add(
            order(1, unit_price=Decimal("0.10"), ordered_at=datetime(2026, 10, 4, 1, 30, tzinfo=there))
        )
    with reading() as session:
        stored = session.scalars(select(Order)).one()
        assert stored.unit_price == Decimal("0.10")
        assert stored.ordered_at == datetime(2026, 10, 3, 17, 30, tzinfo=UTC)
        assert stored.ordered_at.tzinfo is UTC
        assert str(session.scalar(select(func.date(Order.ordered_at)))) == "2026-10-03"


def test_a_time_without_a_zone_is_refused(shop: Path):
    with pytest.raises(StatementError, match="has no time zone"), writing() as session:
        session.add(order(1, ordered_at=datetime(2026, 10, 3)))


def test_sqlite_lets_readers_read_while_somebody_writes(shop: Path):
    with reading() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("postgresql://me@db/shop", "postgresql+psycopg://me@db/shop"),
        ("postgresql+psycopg://me@db/shop", "postgresql+psycopg://me@db/shop"),
        ("sqlite:////srv/shop.sqlite", "sqlite:////srv/shop.sqlite"),
    ],
)
def test_database_url_names_the_database(url: str, database: str):
    assert Settings(database_url=url).database == database


def test_an_unknown_database_is_refused_by_name():
    with pytest.raises(ValueError, match="'mysql'; use one of sqlite://, postgresql://"):
        Settings(database_url="mysql://db/shop")


def test_without_database_url_the_database_is_a_file_in_the_state_folder(tmp_path: Path):
    assert Settings(state_dir=tmp_path).database == f"sqlite:///{tmp_path}/database.sqlite"
