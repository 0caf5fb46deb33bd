"""What `alembic` and `services.database.migrate()` run: all new migrations, in one locked transaction.

alembic upgrade head
alembic revision --autogenerate -m "add a column"
"""

from typing import Literal

from alembic import context
from sqlalchemy import func, select

import services.marketplace_models
from services.database import writing
from services.models import Base, UtcDateTime

MIGRATION_LOCK = 5_141_936  # any number, the same for every process that migrates


def plain_type(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Write the database's own type into a new migration: it must run when our class is long gone."""
    return "sa.DateTime(timezone=True)" if isinstance(item, UtcDateTime) else False


if context.is_offline_mode():
    raise SystemExit("--sql is not supported: run `alembic upgrade head` with a database that answers")

# On SQLite, `writing` itself keeps other writers out. On PostgreSQL an advisory lock does, to the commit.
with writing() as session:
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
    context.configure(
        connection=session.connection(),
        target_metadata=Base.metadata,
        transactional_ddl=True,  # a migration that fails half-way leaves nothing, on SQLite too
        render_as_batch=True,  # SQLite changes a column by copying the table
        render_item=plain_type,
    )
    context.run_migrations()
