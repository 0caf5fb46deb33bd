"""Orders from CSV files into the database.

What to learn here: how a job over millions of rows uses little memory, keeps every bad row for a person
to correct, and can be killed at any moment and started again with neither a gap nor a duplicate. The
trick: the place in the file is saved in the same transaction as the rows up to that place.
"""

import csv
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, TypedDict, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import CursorResult, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from services.csv_file import CsvFile, Place, as_text, harmless, open_csv
from services.database import FETCH_ROWS, reading, writing
from services.models import Import, Order, Reject
from services.paths import atomic_write, inside
from settings import settings

Progress = Callable[[int, int], object]  # called with the rows done and the rows in all


class OrderRow(BaseModel):
    """What a row must be to become an order. A description is for the person who corrects the row."""

    model_config = ConfigDict(str_strip_whitespace=True)

    order_id: str = Field(pattern=r"^[A-Za-z0-9-]{1,40}$", description="1 to 40 letters, digits, hyphens")
    customer: str = Field(pattern=r"^[^\x00]{1,200}$", description="1 to 200 characters, none of them NUL")
    email: str = Field(
        max_length=254,
        pattern=r"^[^@\s\x00]+@[^@\s\x00]+\.[^@\s\x00]+$",
        description="an address like name@example.com",
    )
    country: str = Field(pattern=r"^[A-Z]{2}$", description="2 capital letters, as in DE")
    product: str = Field(pattern=r"^[^\x00]{1,200}$", description="1 to 200 characters, none of them NUL")
    quantity: int = Field(ge=1, le=1_000_000)
    unit_price: Decimal = Field(ge=0, max_digits=12, decimal_places=2)
    # The lower limit also refuses "20261003", which would be read as seconds since 1970.
    ordered_at: AwareDatetime = Field(ge=datetime(2000, 1, 1, tzinfo=UTC))


COLUMNS = list(OrderRow.model_fields)


class ImportResult(TypedDict):
    """What an import did, as plain data that can be a task's result. Paths start at the data folder."""

    path: str
    first_byte: int
    end_byte: int
    imported: int  # rows
    rejected: int  # rows
    rejects: str | None  # the file with the bad rows; None for a byte range, until `merge_rejects`
    resumed_after_line: int | None  # where this run went on after a crash; None: at the beginning


class ImportTakenOver(RuntimeError):
    """The same import was started again while this one ran. That run goes on where this one stopped."""


def import_csv(
    csv_path: str | Path,
    *,
    batch_size: int = 5_000,
    on_progress: Progress | None = None,
    byte_range: tuple[int, int] | None = None,
) -> ImportResult:
    """Import the orders of the file `csv_path` in the data folder, or only those of one `byte_range`.

    A transaction holds `batch_size` rows, good and bad, and the place reached. After each one,
    `on_progress(done, all)` is called with numbers of rows. After a crash, the next call for the unchanged
    file goes on at that place. After a finished import, a call imports the file again, which changes
    nothing: an order that exists is replaced.

    The rejects file, `out/rejects/…` in the data folder, has one line for each reason to refuse a row.
    After imports by byte ranges from `split_byte_ranges`, `merge_rejects` writes it.

    Raises `ValueError` before a row is stored if the file is not UTF-8, not well-formed or has the wrong
    columns. Raises `ValueError` if the file changes meanwhile, and `ImportTakenOver`; finished batches stay.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    with _open(csv_path) as source:
        first, end = byte_range or (0, source.size)
        begin = source.place_of(first) if first else source.begin
        # All of it is read once before the first row is stored: a file with a broken structure is refused
        # as a whole. Reading is cheap beside checking and storing.
        total = sum(1 for _ in source.rows(replace(begin), end))
        job = _claim(source, first, end, begin)
        place = Place(job.next_byte, job.next_line)
        resumed = place.line if place != begin else None
        rows = source.rows(place, end)
        while batch := list(islice(rows, batch_size)):
            good, bad = _validate(batch, source.columns)
            source.check_unchanged()
            _store(job, good, bad, len(batch) - len(good), place)
            if on_progress:
                on_progress(job.imported + job.rejected, total)
    rejects = None if byte_range else _write_rejects(job.path, [job.id])
    with writing() as session:
        _advance(session, job, finished_at=datetime.now(UTC))
    return {
        "path": job.path,
        "first_byte": first,
        "end_byte": end,
        "imported": job.imported,
        "rejected": job.rejected,
        "rejects": rejects,
        "resumed_after_line": resumed,
    }


def split_byte_ranges(csv_path: str | Path, parts: int) -> list[tuple[int, int]]:
    """Return at most `parts` byte ranges of about equal size that make up the file `csv_path`.

    Each begins with a row, and not with a line in the middle of a quoted field. Only a reader that comes
    from the beginning of the file can tell the two apart, so the file is read once.

    Raises `ValueError` as `import_csv` does for a file with a broken structure.
    """
    if parts < 1:
        raise ValueError(f"parts={parts}: must be at least 1")
    with _open(csv_path) as source:
        begins = [0]
        place = replace(source.begin)
        for _ in source.rows(place, source.size):
            if len(begins) * source.size / parts <= place.byte < source.size:
                begins.append(place.byte)
        return list(pairwise([*begins, source.size]))


def merge_rejects(csv_path: str | Path, results: Sequence[ImportResult]) -> ImportResult:
    """Write the rejects file after imports by byte ranges, and return the sum of their `results`.

    It may run again: the rejects stay in the database until the file is imported again.

    Raises `ValueError` if the ranges do not make up the whole file, or one of them is not finished.
    """
    with _open(csv_path) as source, reading() as session:
        ranges = sorted((result["first_byte"], result["end_byte"]) for result in results)
        ends = [end for _, end in ranges]
        if [begin for begin, _ in ranges] != [0, *ends[:-1]] or ends[-1:] != [source.size]:
            raise ValueError(
                f"results: the byte ranges {ranges} do not make up all {source.size} bytes of {source.name}"
            )
        found = session.scalars(
            select(Import).where(
                Import.path == source.name,
                Import.fingerprint == source.fingerprint,
                Import.finished_at.is_not(None),
            )
        )
        jobs = {(job.first_byte, job.end_byte): job for job in found}
    unfinished = [part for part in ranges if part not in jobs]
    if unfinished:
        raise ValueError(
            f"results: the import of {source.name} is not finished for the byte ranges {unfinished}"
        )
    parts = [jobs[part] for part in ranges]
    return {
        "path": source.name,
        "first_byte": 0,
        "end_byte": source.size,
        "imported": sum(job.imported for job in parts),
        "rejected": sum(job.rejected for job in parts),
        "rejects": _write_rejects(source.name, [job.id for job in parts]),
        "resumed_after_line": None,
    }


@contextmanager
def _open(csv_path: str | Path) -> Iterator[CsvFile]:
    path = inside(settings.data_dir, csv_path, field="csv_path")
    name = path.relative_to(settings.data_dir.resolve()).as_posix()
    with open_csv(path, name, COLUMNS) as source:
        yield source


def _claim(source: CsvFile, first: int, end: int, begin: Place) -> Import:
    """Return the record of this import, which says where to begin, and take it from any other run."""
    fresh = {
        "fingerprint": source.fingerprint,
        "next_byte": begin.byte,
        "next_line": begin.line,
        "imported": 0,
        "rejected": 0,
        "started_at": datetime.now(UTC),
        "finished_at": None,
    }
    key = {"path": source.name, "first_byte": first, "end_byte": end}
    with writing() as session:
        # What is left of an earlier content of the file is no use any more.
        session.execute(
            delete(Import).where(Import.path == source.name, Import.fingerprint != source.fingerprint)
        )
        session.execute(_insert(session, Import).values(**key, **fresh, owner="").on_conflict_do_nothing())
        job = session.scalars(select(Import).filter_by(**key).with_for_update()).one()
        if job.finished_at:
            session.execute(delete(Reject).where(Reject.import_id == job.id))
            for name, value in fresh.items():
                setattr(job, name, value)
        job.owner = uuid.uuid4().hex
    return job


def _validate(
    batch: list[tuple[int, list[str]]], columns: list[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the orders of a batch of numbered rows, and a reject for each reason against a row."""
    good: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    for line, row in batch:
        if len(row) != len(columns):
            reason = f"The row has {len(row)} columns instead of {len(columns)}"
            bad.append({"line": line, "column": "", "value": _shown(",".join(row)), "reason": reason})
            continue
        try:
            good.append(vars(OrderRow.model_validate(dict(zip(columns, row, strict=True)))))
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                value = str(problem["input"])
                column = str(problem["loc"][0])
                expected = OrderRow.model_fields[column].description
                reason = f"Expected {expected}" if expected else problem["msg"]
                bad.append({"line": line, "column": column, "value": _shown(value), "reason": reason})
    return good, bad


def _shown(value: str) -> str:
    """Return a refused value in a form that any database and any spreadsheet can hold."""
    return value.replace("\0", "\\0")[:200]


def _store(
    job: Import, good: list[dict[str, Any]], bad: list[dict[str, Any]], bad_rows: int, place: Place
) -> None:
    """Store a batch and the place after it: all of it or, after a crash, nothing."""
    with writing() as session:
        _advance(
            session,
            job,
            next_byte=place.byte,
            next_line=place.line,
            imported=job.imported + len(good),
            rejected=job.rejected + bad_rows,
        )
        if good:
            # In one order everywhere, or two byte ranges with the same orders lock each other out.
            good.sort(key=itemgetter("order_id"))
            order = _insert(session, Order)
            new = {column: order.excluded[column] for column in COLUMNS}
            session.connection().execute(
                order.on_conflict_do_update(index_elements=["order_id"], set_=new), good
            )
        if bad:
            session.execute(insert(Reject), [{"import_id": job.id, **reject} for reject in bad])


def _advance(session: Session, job: Import, **values: object) -> None:
    """Change the record of an import, in the database and in `job`, if this run still owns it."""
    mine = update(Import).where(Import.id == job.id, Import.owner == job.owner)
    changed = cast("CursorResult[Any]", session.execute(mine.values(**values)))
    if changed.rowcount != 1:
        raise ImportTakenOver(f"the import of {job.path} was started again elsewhere, and goes on there")
    for name, value in values.items():
        setattr(job, name, value)


def _insert(session: Session, table: type[Order | Import]) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that can say ON CONFLICT. Both databases have it, SQLAlchemy has it for each."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    return sqlite.insert(table) if is_sqlite else postgresql.insert(table)


def _write_rejects(name: str, import_ids: list[int]) -> str:
    """Write the rejects of some imports of the file `name`, sorted by line, and return the file's path."""
    path = settings.out_dir / "rejects" / name
    rejects = (
        select(Reject.line, Reject.column, Reject.value, Reject.reason)
        .where(Reject.import_id.in_(import_ids))
        .order_by(Reject.line, Reject.id)
        .execution_options(yield_per=FETCH_ROWS)
    )
    with reading() as session, atomic_write(path) as file, as_text(file) as text:
        writer = csv.writer(text)
        writer.writerow(["line", "column", "value", "reason"])
        for line, column, value, reason in session.execute(rejects):
            writer.writerow([line, column, harmless(value), reason])
    return str(path.relative_to(settings.data_dir))
