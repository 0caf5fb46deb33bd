"""What an import costs: rows per second and memory, beside a bare loop, and with one process for each core.

    python benchmarks/import_csv.py --rows 1000000
    DATABASE_URL=postgresql://... python benchmarks/import_csv.py --rows 1000000

It empties the table `orders` of that database between the measurements. Without DATABASE_URL it uses a
SQLite file in a temporary folder. A million rows are about 95 MB.
"""

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import delete, func, select

from services import database, order_export, order_import
from services.models import Order
from settings import ROOT, settings

TABLE = "orders.csv"
BATCH = 5_000


def bare_loop() -> int:
    """Check each row and store it with the driver's own executemany: nothing can be done with less."""
    mark = "?" if settings.database.startswith("sqlite") else "%s"
    columns = ", ".join(order_import.COLUMNS)
    statement = (
        f"INSERT INTO orders ({columns}) VALUES ({', '.join([mark] * len(order_import.COLUMNS))}) "
        "ON CONFLICT (order_id) DO UPDATE SET "
        + ", ".join(f"{c} = excluded.{c}" for c in order_import.COLUMNS)
    )
    connection = database.engine().raw_connection()
    cursor = connection.cursor()
    with (settings.data_dir / TABLE).open(newline="", encoding="utf-8") as file:
        checked = (order for row in csv.DictReader(file) if (order := _check(row)))
        while batch := list(islice(checked, BATCH)):
            cursor.executemany(statement, batch)
            connection.commit()
    connection.close()
    return 1


def _check(row: dict[str, Any]) -> list[Any] | None:
    try:
        order = vars(order_import.OrderRow.model_validate(row))
    except ValidationError:
        return None
    if settings.database.startswith("sqlite"):
        order["unit_price"] = float(order["unit_price"])
        order["ordered_at"] = str(order["ordered_at"])
    return list(order.values())


def one_process() -> int:
    """Import the file."""
    order_import.import_csv(TABLE, batch_size=BATCH)
    return 1


def byte_ranges() -> int:
    """Import the file in one part for each core, as a chord does."""
    plan = order_import.begin_import(TABLE, os.cpu_count() or 1)
    with ProcessPoolExecutor(len(plan.ranges), mp_context=get_context("fork")) as pool:
        list(pool.map(partial(import_range, plan.import_id), plan.ranges))
    order_import.finish_import(plan.import_id)
    return len(plan.ranges)


def import_range(import_id: str, part: tuple[int, int]) -> order_import.PartResult:
    """Import one byte range."""
    return order_import.import_part(import_id, *part, batch_size=BATCH)


def export_jsonl() -> int:
    """Export what has been imported."""
    order_export.export_orders("jsonl")
    return 1


def export_csv() -> int:
    """Export what has been imported."""
    order_export.export_orders("csv")
    return 1


MEASURED: dict[str, tuple[Callable[[], int], bool]] = {  # and whether it begins with an empty table
    "bare loop": (bare_loop, True),
    "import_csv": (one_process, True),
    "import_csv again": (one_process, False),
    "byte ranges": (byte_ranges, True),
    "export csv": (export_csv, False),
    "export jsonl": (export_jsonl, False),
}


def measure(name: str) -> tuple[float, int, int, int]:
    """Return seconds, orders in the table, peak memory in MB and processes. Runs in a process of its own."""
    work, empty = MEASURED[name]
    database.migrate()
    if empty:
        with database.writing() as session:
            session.execute(delete(Order))
    begin = time.perf_counter()
    processes = work()
    seconds = time.perf_counter() - begin
    with database.reading() as session:
        orders = session.scalar(select(func.count()).select_from(Order)) or 0
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return seconds, orders, peak // 1024, processes


def main() -> None:
    """Make the table and measure each way in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--only", choices=MEASURED, nargs="+", default=list(MEASURED))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # The measuring processes are started anew, so that memory is theirs alone, and read these.
        os.environ["DATA_DIR"] = folder
        os.environ["STATE_DIR"] = folder
        table = Path(folder) / TABLE
        make = [sys.executable, str(ROOT / "data/make_tables.py"), "--bad", "0.01", "--output", str(table)]
        subprocess.run([*make, "--rows", str(options.rows)], check=True)
        size = table.stat().st_size
        print(f"{size / 1e6:,.0f} MB", "SQLite" if settings.database_url is None else "PostgreSQL")
        print(f"{'':18}{'rows/s':>10}{'seconds':>10}{'MB each':>10}{'processes':>11}{'orders':>12}")
        for name in options.only:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                seconds, orders, peak, processes = pool.submit(measure, name).result()
            print(
                f"{name:18}{options.rows / seconds:10,.0f}{seconds:10.1f}{peak:10}{processes:11}{orders:12,}"
            )


if __name__ == "__main__":
    main()
