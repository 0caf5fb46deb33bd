"""An import that goes on after a crash."""

import sqlite3

from celery_app import app
from lab.workshop.services import note, simulate_work
from settings import settings

PART = 10  # rows in one transaction


def connect() -> sqlite3.Connection:
    """Open the database, and make its tables if they are missing."""
    database = sqlite3.connect(settings.state_dir / "import.sqlite")
    database.execute("CREATE TABLE IF NOT EXISTS rows (number INTEGER)")
    database.execute("CREATE TABLE IF NOT EXISTS done (import TEXT PRIMARY KEY, rows INTEGER)")
    return database


@app.task
def import_rows(name: str, count: int) -> int:
    """Import the rows 0 to `count` - 1 of the import `name`. Return how many this run has imported."""
    database = connect()
    # TODO 2: where was the run before?
    begin = 0
    for first in range(begin, count, PART):
        rows = range(first, min(first + PART, count))
        with database:  # one transaction
            database.executemany("INSERT INTO rows VALUES (?)", [(number,) for number in rows])
            # TODO 1: note in the same transaction how far it is.
        note("part", first=first)
        simulate_work(0.06)
    return count - begin
