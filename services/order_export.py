"""Orders out of the database, as CSV, JSON Lines or Excel, in constant memory.

What to learn here: rows are fetched and written a few at a time, and a reader of the file sees the old one or
the new one, never half of it.
"""

import csv
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

import xlsxwriter
from sqlalchemy import func, select

from services.csv_file import as_text, harmless
from services.database import FETCH_ROWS, reading
from services.models import Order
from services.order_import import COLUMNS, Progress
from services.paths import atomic_write
from settings import settings

EXCEL_MAX_ROWS = 1_048_576  # Excel's own limit, with the header

_OrderTuple = Sequence[Any]  # an order's values, in the order of COLUMNS


class ExportResult(TypedDict):
    """What an export wrote. The path starts at the data folder."""

    path: str
    rows: int
    bytes: int


def export_orders(format: str, *, on_progress: Progress | None = None) -> ExportResult:
    """Write all orders, sorted by `order_id`, to `out/exports/orders.<format>` in the data folder.

    `format` is "csv", "jsonl" or "xlsx". Text in CSV goes through `harmless`. JSON Lines keeps every text
    as it is, and prices as text, so that they stay exact. Times are in UTC; in Excel they are dates, which
    have no time zone. `on_progress(done, all)` is called with numbers of rows.

    Memory does not grow with the number of rows. A reader of the file sees the old one or the new one.

    Raises `ValueError` for an unknown format, and for more orders than fit on an Excel sheet.
    """
    if format not in _WRITERS:
        raise ValueError(f"format={format!r}: use one of {', '.join(_WRITERS)}")
    path = settings.out_dir / "exports" / f"orders.{format}"
    with reading() as session:
        total = session.scalar(select(func.count()).select_from(Order)) or 0
        if format == "xlsx" and total >= EXCEL_MAX_ROWS:
            raise ValueError(
                f"format='xlsx': {total:,} orders and a header are more than the {EXCEL_MAX_ROWS:,} rows "
                "of an Excel sheet; use csv or jsonl"
            )
        columns = [getattr(Order, column) for column in COLUMNS]
        orders = session.execute(
            select(*columns).order_by(Order.order_id).execution_options(yield_per=FETCH_ROWS)
        )
        with atomic_write(path) as file:
            _WRITERS[format](file, _counted(orders, total, on_progress))
    return {"path": str(path.relative_to(settings.data_dir)), "rows": total, "bytes": path.stat().st_size}


def _counted(
    orders: Iterable[_OrderTuple], total: int, on_progress: Progress | None
) -> Iterator[_OrderTuple]:
    done = 0
    for done, order in enumerate(orders, start=1):
        yield order
        if on_progress and (done % FETCH_ROWS == 0 or done == total):
            on_progress(done, total)


def _write_csv(file: BinaryIO, orders: Iterable[_OrderTuple]) -> None:
    with as_text(file) as text:
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for order in orders:
            writer.writerow([harmless(value) if isinstance(value, str) else _plain(value) for value in order])


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _write_jsonl(file: BinaryIO, orders: Iterable[_OrderTuple]) -> None:
    with as_text(file) as text:
        for order in orders:
            # `default` is called for what JSON does not know: prices and times.
            values = dict(zip(COLUMNS, order, strict=True))
            text.write(json.dumps(values, ensure_ascii=False, default=_plain) + "\n")


def _write_xlsx(file: BinaryIO, orders: Iterable[_OrderTuple]) -> None:
    # Rows wait in a temporary file, which lies beside the result and is removed after an error too.
    with tempfile.TemporaryDirectory(dir=Path(file.name).parent, prefix=".xlsx-") as folder:
        workbook = xlsxwriter.Workbook(file, {"constant_memory": True, "tmpdir": folder})
        sheet = workbook.add_worksheet("orders")
        time_format = workbook.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        sheet.write_row(0, 0, COLUMNS)
        for number, order in enumerate(orders, start=1):
            for column, value in enumerate(order):
                if isinstance(value, str):
                    sheet.write_string(number, column, value)  # a string is never run as a formula
                elif isinstance(value, datetime):
                    sheet.write_datetime(number, column, value.replace(tzinfo=None), time_format)
                else:
                    sheet.write_number(number, column, value)
        workbook.close()


_WRITERS: dict[str, Callable[[BinaryIO, Iterable[_OrderTuple]], None]] = {
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "xlsx": _write_xlsx,
}
