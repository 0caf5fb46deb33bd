"""An order in a database, and a task about it."""

import os
import sqlite3
from typing import Any

from celery_app import app
from lab.workshop.services import simulate_work


def connect() -> sqlite3.Connection:
    """Open the database, and make its table if it is missing."""
    database = sqlite3.connect(f"{os.environ['EXERCISE_FOLDER']}/orders.sqlite")
    database.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, article TEXT NOT NULL)")
    return database


@app.task
def pack(order: int) -> str:
    """Pack an order. Raises `LookupError` if it is not in the database."""
    row = connect().execute("SELECT article FROM orders WHERE id = ?", (order,)).fetchone()
    if row is None:
        raise LookupError(f"order {order} is not in the database")
    return f"packed {row[0]}"


def place_order(order: int, article: str | None) -> Any:
    """Write an order into the database, and send its packing. Return the result of the task."""
    with connect() as database:  # the end of the block commits, or undoes all
        database.execute("INSERT INTO orders VALUES (?, ?)", (order, article))
        simulate_work(0.2)  # other work of the same transaction
    return pack.delay(order)
