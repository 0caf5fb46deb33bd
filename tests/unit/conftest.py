"""A shop for each test: its own empty database and its own data folder."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from services.database import engine, migrate
from settings import Settings, settings

DATABASES = ["sqlite"]
# Nobody must install PostgreSQL to run the tests. `.ci/run` sets this, and then all of them run on both.
POSTGRES = os.environ.get("TEST_POSTGRES_URL")
if POSTGRES:
    DATABASES.append("postgresql")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make an empty SQLite database and a data folder, and return the folder."""
    yield from _shop(tmp_path, monkeypatch, None)


@pytest.fixture(params=DATABASES)
def any_shop(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Make a shop on each database in turn."""
    if request.param == "sqlite":
        yield from _shop(tmp_path, monkeypatch, None)
        return
    assert POSTGRES
    name = f"test_{uuid.uuid4().hex}"
    server = create_engine(Settings(database_url=POSTGRES).database, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        yield from _shop(tmp_path, monkeypatch, server.url.set(database=name).render_as_string(False))
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def _shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str | None) -> Iterator[Path]:
    monkeypatch.setattr(settings, "data_dir", tmp_path / "data")
    monkeypatch.setattr(settings, "state_dir", tmp_path / "state")
    monkeypatch.setattr(settings, "database_url", url)
    settings.data_dir.mkdir()
    migrate()
    yield settings.data_dir
    engine().dispose()
