"""Orders from CSV files into the database.

What to learn here: how a job over millions of rows uses little memory, keeps every bad row for a person
to correct, and can be killed or delivered twice at any moment with neither a gap nor a duplicate. Three
tricks: an import is known by the id of its call, so a repeated call finds what there is; the place in the
file is saved in the same transaction as the rows up to that place; and a row never replaces a later one.
"""

import csv
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict, cast

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from sqlalchemy import CursorResult, delete, func, insert, select, tuple_, update
from sqlalchemy.orm import Session

from services.csv_file import CsvFile, Place, Row, as_text, harmless, open_csv
from services.database import FETCH_ROWS, reading, upsert, writing
from services.models import Import, ImportPart, Order, Reject
from services.paths import atomic_write, inside, what_is_there
from settings import settings

Progress = Callable[[int, int], object]  # called with the rows done and the rows in all


def _written(pattern: str) -> BeforeValidator:
    """Refuse a text that is not written like `pattern`, whatever Python could make of it.

    `int` reads 1_000 and digits of all scripts; a date parser reads 20260304050607 as milliseconds.
    """
    form = re.compile(pattern, re.ASCII)

    def check(value: object) -> str:
        if not isinstance(value, str) or not form.fullmatch(value.strip()):
            raise ValueError("not in the form that is described")
        return value.strip()

    return BeforeValidator(check)


class OrderRow(BaseModel):
    """What a row must be to become an order. A description is for the person who corrects the row.

    A number has the digits 0 to 9 and at most one decimal point. A moment has a date, a time and a time zone.
    """

    model_config = ConfigDict(str_strip_whitespace=True)

    order_id: str = Field(  # a hyphen at the beginning would be a formula in a spreadsheet
        pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,39}$",
        description="1 to 40 letters A to Z, digits and hyphens, beginning with a letter or a digit",
    )
    customer: str = Field(pattern=r"^[^\x00]{1,200}$", description="1 to 200 characters, none of them NUL")
    email: str = Field(
        max_length=254,
        pattern=r"^[^@\s\x00]+@[^@\s\x00]+\.[^@\s\x00]+$",
        description="an address like name@example.com",
    )
    country: str = Field(pattern=r"^[A-Z]{2}$", description="2 capital letters, as in DE")
    product: str = Field(pattern=r"^[^\x00]{1,200}$", description="1 to 200 characters, none of them NUL")
    quantity: Annotated[int, _written(r"[0-9]{1,7}")] = Field(
        ge=1, le=1_000_000, description="a whole number from 1 to 1000000, in the digits 0 to 9 alone"
    )
    unit_price: Annotated[Decimal, _written(r"[0-9]{1,10}(\.[0-9]{1,2})?")] = Field(
        description="a price from 0 to 9999999999.99, as in 1250 or 8.40, without sign, comma or currency"
    )
    ordered_at: Annotated[
        AwareDatetime,
        _written(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)"),
    ] = Field(
        ge=datetime(2000, 1, 1, tzinfo=UTC),
        lt=datetime(2100, 1, 1, tzinfo=UTC),  # as far as reports go
        description="a moment from 2000 to 2099 with its time zone, as in 2026-10-03T14:05:00Z or …+02:00",
    )


COLUMNS = list(OrderRow.model_fields)


class Plan(NamedTuple):
    """An import that has begun, and the byte ranges of its parts."""

    import_id: str
    ranges: list[tuple[int, int]]


class PartResult(TypedDict):
    """What came of one byte range, as plain data that can be a task's result."""

    path: str
    first_byte: int
    end_byte: int
    accepted: int  # rows
    rejected: int  # rows
    resumed_after_line: int | None  # where a run went on after another one; None: one run did it all


class ImportResult(TypedDict):
    """What came of an import. Paths start at the data folder.

    All rows of the file: imported + replaced + rejected.
    """

    path: str
    imported: int  # orders of this import that are in the table
    replaced: int  # good rows whose order a later row, or a later import, has replaced
    rejected: int  # rows
    rejects: str  # the file with the bad rows
    resumed_after_line: int | None  # where a run went on after another one; None: at no place


def import_csv(
    csv_path: str | Path,
    *,
    import_id: str | None = None,
    batch_size: int = 5_000,
    on_progress: Progress | None = None,
) -> ImportResult:
    """Import the orders of the file `csv_path` in the data folder.

    A transaction holds `batch_size` rows, good and bad, and the place reached. After each one,
    `on_progress(done, all)` is called with numbers of rows. The rejects file, `out/rejects/…` in the data
    folder, has one line for each reason to refuse a row.

    `import_id` names the call. A call that is repeated with it, after a crash or at the same moment, goes on
    where the import is; after its end it changes nothing, and returns the same result. Without it, each call
    is a new import. A later import replaces the orders of an earlier one, and a later row an earlier row.

    Raises `ValueError` before a row is stored if the file is not UTF-8, not well-formed or has the wrong
    columns. Raises `ValueError` if the file changes before the end; finished batches stay.
    """
    _at_least_one("batch_size", batch_size)
    plan = begin_import(csv_path, 1, import_id)
    for first, end in plan.ranges:
        import_part(plan.import_id, first, end, batch_size=batch_size, on_progress=on_progress)
    return finish_import(plan.import_id)


def split_byte_ranges(csv_path: str | Path, parts: int) -> list[tuple[int, int]]:
    """Return at most `parts` byte ranges of about equal size that make up the file `csv_path`.

    Each begins with a row, and not with a line in the middle of a quoted field. Only a reader that comes
    from the beginning of the file can tell the two apart, so the file is read once.

    Raises `ValueError` as `import_csv` does for a file with a broken structure.
    """
    with _open(csv_path) as source:
        return [(part.first_byte, part.end_byte) for part in _split(source, parts)]


# --- An import in three steps ----------------------------------------------------------------------------


def begin_import(csv_path: str | Path, parts: int, import_id: str | None = None) -> Plan:
    """Read the file once, and note down its parts: those of `split_byte_ranges`. Store no order yet.

    A call that is repeated with its `import_id` returns the parts that are noted down.

    Raises `ValueError` as `split_byte_ranges` does, and for an id that belongs to another file.
    """
    import_id = import_id or uuid.uuid4().hex
    _, name = _locate(csv_path)
    with reading() as session:
        job = session.scalar(select(Import).filter_by(id=import_id))
    if job is None:
        with _open(csv_path) as source:
            found = _split(source, parts)
            source.check_unchanged()
            _note_down(source, import_id, found)
    with reading() as session:
        job = _get(session, import_id)
        if job.path != name:
            raise ValueError(f"import_id={import_id!r}: it is an import of {job.path}; give another id")
        ranges = [(part.first_byte, part.end_byte) for part in _parts(session, job)]
    return Plan(import_id, ranges)


def import_part(
    import_id: str, first: int, end: int, *, batch_size: int = 5_000, on_progress: Progress | None = None
) -> PartResult:
    """Import one part of an import that has begun: the rows from byte `first` to byte `end`.

    Several runs may work on one part at the same time, and each batch is stored once. All of them return
    when the part is finished, with the same result. A part that is finished is left alone.

    Raises `ValueError` for a range that is not one of the import's parts, and if the file has changed.
    """
    _at_least_one("batch_size", batch_size)
    with reading() as session:
        job = _get(session, import_id)
        parts = {(part.first_byte, part.end_byte): part for part in _parts(session, job)}
    if (first, end) not in parts:
        raise ValueError(
            f"first={first}, end={end}: no part of the import of {job.path}; "
            f"take one of its ranges: {', '.join(map(str, list(parts)[:5]))}{', …' if len(parts) > 5 else ''}"
        )
    part = parts[first, end]
    if part.next_byte < end:
        with _open_unchanged(job) as source:
            part = _work(part, source, batch_size, on_progress)
    return {
        "path": job.path,
        "first_byte": first,
        "end_byte": end,
        "accepted": part.accepted,
        "rejected": part.rejected,
        "resumed_after_line": part.resumed_after_line,
    }


def finish_import(import_id: str) -> ImportResult:
    """Count what the finished parts have left in the table, write the rejects file, and return the result.

    A call that is repeated returns the same result.

    Raises `ValueError` if a part is not finished, and if the file has changed meanwhile.
    """
    with reading() as session:
        job = _get(session, import_id)
        parts = _parts(session, job)
        if job.finished_at:
            return _result(job, parts)
        if unfinished := [
            (part.first_byte, part.end_byte) for part in parts if part.next_byte < part.end_byte
        ]:
            raise ValueError(f"the import of {job.path} is not finished in the byte ranges {unfinished}")
        # A newer content of the file may have newer rejects: those are not for us to replace.
        with _open_unchanged(job):
            _write_rejects(session, job)
        in_table = session.scalar(select(func.count()).where(Order.import_number == job.number)) or 0
    counts = {
        "imported": in_table,
        "replaced": sum(part.accepted for part in parts) - in_table,
        "rejected": sum(part.rejected for part in parts),
        "finished_at": datetime.now(UTC),
    }
    with writing() as session:
        first_end = update(Import).where(Import.number == job.number, Import.finished_at.is_(None))
        session.execute(first_end.values(**counts))
        session.execute(delete(Reject).where(Reject.import_number == job.number))
        return _result(_get(session, import_id), parts)


def _result(job: Import, parts: Sequence[ImportPart]) -> ImportResult:
    return {
        "path": job.path,
        "imported": job.imported,
        "replaced": job.replaced,
        "rejected": job.rejected,
        "rejects": str(_rejects_path(job).relative_to(settings.data_dir)),
        "resumed_after_line": max((part.resumed_after_line or 0 for part in parts), default=0) or None,
    }


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}={value}: must be at least 1")


# --- The file, and its parts -----------------------------------------------------------------------------


def _locate(csv_path: str | Path) -> tuple[Path, str]:
    """Return where a file is, and its name from the data folder on."""
    path = inside(settings.data_dir, csv_path, field="csv_path")
    return path, path.relative_to(settings.data_dir.resolve()).as_posix()


@contextmanager
def _open(csv_path: str | Path) -> Iterator[CsvFile]:
    path, name = _locate(csv_path)
    if not path.is_file():
        there = what_is_there(settings.data_dir, path, (".csv",))
        raise ValueError(f"csv_path={name!r}: no such file in {settings.data_dir}; {there}")
    with open_csv(path, name, COLUMNS) as source:
        yield source


@contextmanager
def _open_unchanged(job: Import) -> Iterator[CsvFile]:
    with _open(job.path) as source:
        if source.fingerprint != job.fingerprint:
            raise ValueError(f"{job.path} has changed since its import began; start another import")
        yield source


def _split(source: CsvFile, count: int) -> list[ImportPart]:
    """Return at most `count` parts of the file, with nothing done yet.

    All of it is read before the first row is stored: a file with a broken structure is refused as a whole.
    Reading is cheap beside checking and storing.
    """
    _at_least_one("parts", count)
    place = replace(source.begin)
    parts = [_part(0, place)]
    for _ in source.rows(place, source.size):
        parts[-1].rows += 1
        if len(parts) * source.size <= place.byte * count < source.size * count:
            parts[-1].end_byte = place.byte
            parts.append(_part(place.byte, place))
    parts[-1].end_byte = source.size
    return parts


def _part(first: int, place: Place) -> ImportPart:
    return ImportPart(first_byte=first, next_byte=place.byte, next_line=place.line, rows=0)


def _note_down(source: CsvFile, import_id: str, parts: list[ImportPart]) -> None:
    """Store an import and its parts, unless another call with this id was faster."""
    with writing() as session:
        new = upsert(session, Import).values(
            id=import_id, path=source.name, fingerprint=source.fingerprint, started_at=datetime.now(UTC)
        )
        number = session.scalar(new.on_conflict_do_nothing().returning(Import.number))
        if number is not None:
            for part in parts:
                part.import_number = number
            session.add_all(parts)


def _get(session: Session, import_id: str) -> Import:
    job = session.scalar(select(Import).filter_by(id=import_id))
    if job is None:
        raise ValueError(f"import_id={import_id!r}: there is no such import; begin_import returns an id")
    return job


def _parts(session: Session, job: Import) -> Sequence[ImportPart]:
    mine = select(ImportPart).filter_by(import_number=job.number).order_by(ImportPart.first_byte)
    return session.scalars(mine).all()


# --- The work on one part --------------------------------------------------------------------------------


def _work(part: ImportPart, source: CsvFile, batch_size: int, on_progress: Progress | None) -> ImportPart:
    """Import batches until the part is finished, by this run or by others that help. Return how it stands."""
    if part.accepted or part.rejected:
        part.resumed_after_line = part.next_line
    while part.next_byte < part.end_byte:
        place = Place(part.next_byte, part.next_line)
        batch = list(islice(source.rows(place, part.end_byte), batch_size))
        good, bad = _validate(batch, source.columns)
        source.check_unchanged()
        part = _store(part, good, bad, len(batch) - len(good), place)
        if on_progress:
            on_progress(part.accepted + part.rejected, part.rows)
    return part


def _validate(batch: list[Row], columns: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the orders of a batch of rows, and a reject for each reason against a row."""
    good: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    for line, values, problem in batch:
        if problem or len(values) != len(columns):
            reason = problem or f"Expected {len(columns)} columns, found {len(values)}"
            bad.append({"line": line, "column": "", "value": _shown(",".join(values)), "reason": reason})
            continue
        try:
            order = OrderRow.model_validate(dict(zip(columns, values, strict=True)))
        except ValidationError as error:
            for wrong in error.errors(include_url=False):
                column = str(wrong["loc"][0])
                reason = f"Expected {OrderRow.model_fields[column].description}"
                if wrong["type"] == "string_unicode":
                    reason = "Half of a character (a surrogate) is no text"
                bad.append(
                    {"line": line, "column": column, "value": _shown(wrong["input"]), "reason": reason}
                )
        else:
            good.append({**vars(order), "line": line})
    return good, bad


def _shown(value: object) -> str:
    """Return a refused value in a form that any database, any spreadsheet and any encoding can hold."""
    return str(value)[:200].replace("\0", "\\0").encode(errors="backslashreplace").decode()


def _store(
    part: ImportPart, good: list[dict[str, Any]], bad: list[dict[str, Any]], bad_rows: int, place: Place
) -> ImportPart:
    """Store a batch and the place after it, in one transaction, and return how the part stands then.

    If another run has stored this batch meanwhile, the part is no longer where we took the batch from.
    Then nothing is stored here.
    """
    with writing() as session:
        here = update(ImportPart).where(ImportPart.id == part.id, ImportPart.next_byte == part.next_byte)
        moved = here.values(
            next_byte=place.byte,
            next_line=place.line,
            accepted=part.accepted + len(good),
            rejected=part.rejected + bad_rows,
            resumed_after_line=part.resumed_after_line,
        )
        if cast("CursorResult[Any]", session.execute(moved)).rowcount:
            number = {"import_number": part.import_number}
            if good:
                _store_orders(session, [order | number for order in good])
            if bad:
                session.execute(insert(Reject), [reject | number for reject in bad])
        return session.get_one(ImportPart, part.id)


def _store_orders(session: Session, orders: list[dict[str, Any]]) -> None:
    # In one order everywhere, or two parts with the same orders lock each other out.
    orders.sort(key=itemgetter("order_id"))
    new = upsert(session, Order)
    values = {column: new.excluded[column] for column in (*COLUMNS, "import_number", "line")}
    later = tuple_(Order.import_number, Order.line) < tuple_(new.excluded.import_number, new.excluded.line)
    session.connection().execute(
        new.on_conflict_do_update(index_elements=["order_id"], set_=values, where=later), orders
    )


# --- The rejects file ------------------------------------------------------------------------------------


def _rejects_path(job: Import) -> Path:
    return settings.out_dir / "rejects" / job.path


def _write_rejects(session: Session, job: Import) -> None:
    """Write the rejects of an import, sorted by line."""
    rejects = (
        select(Reject.line, Reject.column, Reject.value, Reject.reason)
        .where(Reject.import_number == job.number)
        .order_by(Reject.line, Reject.id)
        .execution_options(yield_per=FETCH_ROWS)
    )
    with atomic_write(_rejects_path(job)) as file, as_text(file) as text:
        writer = csv.writer(text)
        writer.writerow(["line", "column", "value", "reason"])
        for line, column, value, reason in session.execute(rejects):
            writer.writerow([line, column, harmless(value), reason])
