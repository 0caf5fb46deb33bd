"""Charging an invoice exactly once, although the message that asks for it may come twice.

The claim and the effect are one database transaction. "Look whether it is done, do it, mark it" is not
enough: two workers can look at the same moment.
"""

import sqlite3
from contextlib import closing

from services.error_texts import shown, some_of
from settings import settings

# Amounts in cents.
INVOICES = {"INV-1001": 12_900, "INV-1002": 4_550, "INV-1003": 89_000}

_SCHEMA = "CREATE TABLE IF NOT EXISTS charges (invoice TEXT PRIMARY KEY, cents INTEGER NOT NULL)"


def charge_once(invoice: str) -> bool:
    """Charge `invoice`. Return True if this call charged it, False if it was charged before.

    Raises `ValueError` for an unknown invoice.
    """
    if invoice not in INVOICES:
        raise ValueError(f"unique_id={shown(invoice)}: no such invoice; use one of {some_of(INVOICES)}")
    with closing(_connect()) as connection, connection:
        # The primary key decides: of two inserts at the same moment, one changes nothing.
        cursor = connection.execute(
            "INSERT INTO charges VALUES (?, ?) ON CONFLICT DO NOTHING", (invoice, INVOICES[invoice])
        )
        return cursor.rowcount == 1


def charges() -> dict[str, int]:
    """Return what was charged, in cents, by invoice."""
    with closing(_connect()) as connection:
        return dict(connection.execute("SELECT invoice, cents FROM charges"))


def forget_charges() -> None:
    """Start anew with no invoice charged."""
    with closing(_connect()) as connection, connection:
        connection.execute("DELETE FROM charges")


def _connect() -> sqlite3.Connection:
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(settings.state_dir / "invoices.sqlite3", timeout=10)
    connection.execute(_SCHEMA)
    return connection
