"""A shop for each test: its own empty database and its own data folder."""

import os
import resource
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
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


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty SQLite database with its tables. A copy is quicker to have than another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "state_dir", tmp_path_factory.mktemp("migrated"))
        patch.setattr(settings, "database_url", None)
        migrate()
        engine().dispose()
        return settings.state_dir / "database.sqlite"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, migrated: Path) -> Iterator[Path]:
    """Make an empty SQLite database and a data folder, and return the folder."""
    monkeypatch.setattr(settings, "data_dir", tmp_path / "data")
    monkeypatch.setattr(settings, "state_dir", tmp_path / "state")
    monkeypatch.setattr(settings, "database_url", None)
    settings.data_dir.mkdir()
    settings.state_dir.mkdir()
    shutil.copy(migrated, settings.state_dir / "database.sqlite")
    yield settings.data_dir
    engine().dispose()


@pytest.fixture(params=DATABASES)
def any_shop(request: pytest.FixtureRequest, shop: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a shop on each database in turn."""
    if request.param == "sqlite":
        yield shop
        return
    assert POSTGRES
    name = f"test_{uuid.uuid4().hex}"
    server = create_engine(Settings(database_url=POSTGRES).database, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        own = server.url.set(database=name).render_as_string(hide_password=False)
        monkeypatch.setattr(settings, "database_url", own)
        migrate()
        yield shop
        engine().dispose()
        connection.execute(text(f"DROP DATABASE {name}"))
    server.dispose()


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """Let the kernel refuse to write more than `size` bytes into one file, as a full disk refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
