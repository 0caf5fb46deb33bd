"""Whether what tasks need beside the broker is there: the database, and room on the disk."""

import shutil

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from services.database import reading
from settings import settings

LEAST_FREE_BYTES = 100_000_000  # our own choice: a report, an export and SQLite's log fit into it


def database() -> str:
    """Return "ok", or what is wrong with the database, in one line."""
    try:
        with reading() as session:
            session.execute(text("SELECT 1"))
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        return f"does not answer ({reason}). Start it, or correct DATABASE_URL"
    return "ok"


def disk() -> str:
    """Return "ok" and what is free where tasks write, in MB, or that it is too little."""
    free = shutil.disk_usage(settings.data_dir).free
    if free < LEAST_FREE_BYTES:
        return f"only {free // 1_000_000} MB are free in {settings.data_dir}. Delete what nobody needs there"
    return f"ok ({free // 1_000_000} MB free)"
