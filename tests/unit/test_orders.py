"""Import and export: nothing is lost, doubled or half-written, whatever comes in, whenever it is killed."""

import csv
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, event, func, select
from sqlalchemy.exc import OperationalError

from services import order_export
from services.database import engine, reading, writing
from services.models import Import, Order, Reject
from services.order_export import export_orders
from services.order_import import (
    COLUMNS,
    ImportResult,
    OrderRow,
    PartResult,
    begin_import,
    finish_import,
    import_csv,
    import_part,
    split_byte_ranges,
)
from tests.unit.conftest import no_file_over

FORK = multiprocessing.get_context("fork")
GOOD = ["A-1", "Ada", "ada@example.com", "GB", "Blue mug", "2", "8.40", "2026-10-03T14:05:00Z"]


def row(number: int, **changed: str) -> list[str]:
    values = dict(zip(COLUMNS, GOOD, strict=True)) | {"order_id": f"A-{number}"} | changed
    return list(values.values())


def write(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = COLUMNS) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def mixed_rows(count: int) -> list[list[str]]:
    """Each tenth row is bad, and each third has a product name of two lines."""
    return [
        row(n, quantity="0" if n % 10 == 0 else "1", product="Desk lamp\nwhite" if n % 3 == 0 else "Mug")
        for n in range(1, count + 1)
    ]


def stored() -> list[str]:
    with reading() as session:
        return sorted(session.scalars(select(Order.order_id)), key=lambda name: int(name.removeprefix("A-")))


def rejects_of(shop: Path, name: str = "orders.csv") -> list[dict[str, str]]:
    with (shop / "out" / "rejects" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_complete(shop: Path, count: int) -> None:
    """Check that the import of `mixed_rows(count)` has left all that it should, once."""
    assert stored() == [f"A-{n}" for n in range(1, count + 1) if n % 10]
    with (shop / "orders.csv").open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        next(reader)
        first_lines = []
        before = reader.line_num
        for values in reader:
            if values[COLUMNS.index("quantity")] == "0":
                first_lines.append(str(before + 1))
            before = reader.line_num
    assert len(first_lines) == count // 10
    assert [reject["line"] for reject in rejects_of(shop)] == first_lines
    assert not list(shop.rglob("*.part"))


# --- What is imported --------------------------------------------------------------------------------


def test_good_rows_come_into_the_database_and_bad_ones_into_the_rejects_file(any_shop: Path):
    write(any_shop / "orders.csv", [row(1), row(2, quantity="0", country="Germany"), row(3)])
    result = import_csv("orders.csv")
    assert result == {
        "path": "orders.csv",
        "imported": 2,
        "replaced": 0,
        "rejected": 1,
        "rejects": "out/rejects/orders.csv",
        "resumed_after_line": None,
    }
    assert stored() == ["A-1", "A-3"]
    assert rejects_of(any_shop) == [
        {
            "line": "3",
            "column": "country",
            "value": "Germany",
            "reason": "Expected 2 capital letters, as in DE",
        },
        {
            "line": "3",
            "column": "quantity",
            "value": "0",
            "reason": "Expected a whole number from 1 to 1000000, in the digits 0 to 9 alone",
        },
    ]


# Python, a date parser or a database would take some of these for something that they do not say.
BAD_VALUES = [
    ("order_id", ""),
    ("order_id", "A 1"),
    ("order_id", "-1"),
    ("order_id", "A" * 41),
    ("order_id", "А-1"),  # noqa: RUF001 - the first letter is Cyrillic
    ("customer", "x" * 201),
    ("customer", "a\0b"),
    ("customer", "a\ud83d"),  # half of an emoji
    ("email", "ada"),
    ("email", "ada@example.com\nBcc: all@example.com"),
    ("email", "\udfffa@example.com"),
    ("country", "de"),
    ("product", " \t "),
    ("quantity", "0"),
    ("quantity", "1000001"),
    ("quantity", "1.5"),
    ("quantity", "1.0"),
    ("quantity", "1_000"),
    ("quantity", "1,000"),
    ("quantity", "1 000"),
    ("quantity", "+1"),
    ("quantity", "1e3"),
    ("quantity", "0x10"),
    ("quantity", "٣"),
    ("quantity", "１"),  # noqa: RUF001 - a full-width digit
    ("quantity", "99999999999999999999"),
    ("quantity", "9" * 5000),
    ("unit_price", "1,50"),
    ("unit_price", "1.505"),
    ("unit_price", "1.500"),
    ("unit_price", "1_0.5"),
    ("unit_price", "1e2"),
    ("unit_price", ".5"),
    ("unit_price", "5."),
    ("unit_price", "+1"),
    ("unit_price", "-1"),
    ("unit_price", "$1"),
    ("unit_price", "٨.٤"),
    ("unit_price", "NaN"),
    ("unit_price", "Infinity"),
    ("unit_price", "10000000000"),
    ("ordered_at", "2026-10-03 14:05"),
    ("ordered_at", "2026-10-03"),
    ("ordered_at", "20261003"),
    ("ordered_at", "20260304050607"),
    ("ordered_at", "1767225600"),
    ("ordered_at", "1767225600.5"),
    ("ordered_at", "20261003T140500Z"),
    ("ordered_at", "2026-276T14:05:00Z"),
    ("ordered_at", "٢٠٢٦-10-03T14:05:00Z"),
    ("ordered_at", "2026-02-30T00:00:00Z"),
    ("ordered_at", "2026-10-03T24:00:00Z"),
    ("ordered_at", "2026-10-03T23:59:60Z"),
    ("ordered_at", "2026-10-03T14:05:00+99:00"),
    ("ordered_at", "2026-10-03T14:05:00.1234567Z"),
    ("ordered_at", "0000-01-01T00:00:00Z"),
    ("ordered_at", "0001-01-01T00:00:00+14:00"),
    ("ordered_at", "1999-12-31T23:59:59Z"),
    ("ordered_at", "2000-01-01T00:00:00+00:01"),
    ("ordered_at", "2099-12-31T23:59:59-00:01"),
    ("ordered_at", "9999-12-31T23:59:59-12:00"),
]


def test_each_bad_value_is_rejected_with_its_column_and_stops_no_other_row(any_shop: Path):
    rows = [row(n, **{column: value}) for n, (column, value) in enumerate(BAD_VALUES, start=1)]
    with (any_shop / "orders.csv").open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows([COLUMNS, *rows, row(1000)])
    result = import_csv("orders.csv")
    assert (result["imported"], result["rejected"]) == (1, len(BAD_VALUES))
    assert stored() == ["A-1000"]
    rejects = rejects_of(any_shop)
    assert [reject["column"] for reject in rejects] == [column for column, _ in BAD_VALUES]
    assert len({reject["line"] for reject in rejects}) == len(BAD_VALUES)
    for (_, value), reject in zip(BAD_VALUES, rejects, strict=True):
        assert reject["reason"].startswith(("Expected ", "Half of a character"))
        shown = value[:200].replace("\0", r"\0").replace("\ud83d", r"\ud83d").replace("\udfff", r"\udfff")
        assert reject["value"].lstrip("'") == shown.lstrip("'")


def test_each_accepted_form_is_stored_as_it_is_meant(any_shop: Path):
    forms: dict[str, dict[str, object]] = {
        "quantity": {"1": 1, "007": 7, " 12 ": 12, "1000000": 1_000_000},
        "unit_price": {
            "0": Decimal("0.00"),
            "1250": Decimal(1250),
            "8.4": Decimal("8.40"),
            "9999999999.99": Decimal("9999999999.99"),
        },
        "ordered_at": {
            "2026-10-03T14:05:00Z": datetime(2026, 10, 3, 14, 5, tzinfo=UTC),
            "2026-10-03T14:05:00+05:30": datetime(2026, 10, 3, 8, 35, tzinfo=UTC),
            "2026-10-03 14:05-02:00": datetime(2026, 10, 3, 16, 5, tzinfo=UTC),
            "2026-10-03T14:05:00.123456+00:00": datetime(2026, 10, 3, 14, 5, 0, 123456, tzinfo=UTC),
            "2000-01-01T00:00:00Z": datetime(2000, 1, 1, tzinfo=UTC),
            "2000-01-01T14:00:00+14:00": datetime(2000, 1, 1, tzinfo=UTC),
            "2099-12-31T23:59:59.999999Z": datetime(2099, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        },
        "customer": {"李" * 200: "李" * 200, "a\x01\x7f\ufffe😀": "a\x01\x7f\ufffe😀"},
        "email": {f"{'e' * 248}@ab.cd": f"{'e' * 248}@ab.cd"},
        "order_id": {"A" * 40: "A" * 40},
    }
    meant = [(column, text, value) for column, texts in forms.items() for text, value in texts.items()]
    write(any_shop / "orders.csv", [row(n, **{column: text}) for n, (column, text, _) in enumerate(meant)])
    assert import_csv("orders.csv")["rejected"] == 0
    with reading() as session:
        found = session.scalars(select(Order).order_by(Order.line)).all()
    assert [getattr(order, column) for order, (column, *_) in zip(found, meant, strict=True)] == [
        value for *_, value in meant
    ]


def test_a_nul_is_rejected_on_every_database(any_shop: Path):
    write(any_shop / "orders.csv", [row(1, customer="a\0b")])
    import_csv("orders.csv")
    (reject,) = rejects_of(any_shop)
    assert (reject["value"], reject["reason"]) == (r"a\0b", "Expected 1 to 200 characters, none of them NUL")


def test_a_row_with_too_few_or_too_many_columns_is_rejected(shop: Path):
    write(shop / "orders.csv", [row(1)[:-1], row(2), [*row(3), "more"]])
    assert import_csv("orders.csv")["imported"] == 1
    reasons = [reject["reason"] for reject in rejects_of(shop)]
    assert reasons == ["Expected 8 columns, found 7", "Expected 8 columns, found 9"]


def test_columns_may_come_in_any_order_and_empty_lines_are_no_rows(shop: Path):
    rows = [list(reversed(row(1))), [], list(reversed(row(2)))]
    write(shop / "orders.csv", rows, header=list(reversed(COLUMNS)))
    assert import_csv("orders.csv")["imported"] == 2
    assert stored() == ["A-1", "A-2"]


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(shop: Path):
    text = "\r\n".join(",".join(values) for values in [COLUMNS, row(1), row(2, quantity="x")])
    (shop / "orders.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert import_csv("orders.csv")["imported"] == 1
    assert rejects_of(shop)[0]["line"] == "3"


def test_line_breaks_quotes_and_commas_inside_a_field_are_kept(shop: Path):
    product = 'Lamp, "warm"\nwhite\n\n,"'
    write(shop / "orders.csv", [row(1, product=product), row(2, quantity="x"), row(3)])
    import_csv("orders.csv")
    with reading() as session:
        assert session.scalar(select(Order.product).where(Order.order_id == "A-1")) == product
    assert rejects_of(shop)[0]["line"] == "6"


def test_a_header_alone_is_an_import_of_no_rows(shop: Path):
    write(shop / "orders.csv", [])
    assert import_csv("orders.csv")["imported"] == 0
    assert rejects_of(shop) == []


def test_ten_thousand_bad_rows_are_all_in_the_rejects_file(shop: Path):
    write(shop / "orders.csv", [row(n, quantity="0") for n in range(10_000)])
    assert import_csv("orders.csv")["rejected"] == 10_000
    assert [reject["line"] for reject in rejects_of(shop)] == [str(n + 2) for n in range(10_000)]
    assert stored() == []


@pytest.mark.parametrize("batch_size", [1, 100])
def test_a_later_row_replaces_an_earlier_one_with_the_same_order_id(any_shop: Path, batch_size: int):
    write(any_shop / "orders.csv", [row(1, quantity="1"), row(2), row(1, quantity="9")])
    result = import_csv("orders.csv", batch_size=batch_size)
    assert (result["imported"], result["replaced"]) == (2, 1)
    with reading() as session:
        assert session.scalars(select(Order.quantity).order_by(Order.order_id)).all() == [9, 2]


def test_progress_counts_rows(shop: Path):
    write(shop / "orders.csv", mixed_rows(25))
    seen: list[tuple[int, int]] = []
    import_csv("orders.csv", batch_size=10, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 25), (20, 25), (25, 25)]


def test_a_formula_in_a_refused_value_is_made_harmless_in_the_rejects_file(shop: Path):
    write(shop / "orders.csv", [row(1, order_id="=HYPERLINK(A1)"), row(2, quantity="-1")])
    import_csv("orders.csv")
    assert [reject["value"] for reject in rejects_of(shop)] == ["'=HYPERLINK(A1)", "'-1"]


# --- What is refused as a whole ----------------------------------------------------------------------

HEADER = ",".join(COLUMNS).encode() + b"\n"
LINE = ",".join(GOOD).encode() + b"\n"


EXCEL_NOTE = "is a note to Excel and no header; remove this line"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "orders.csv is empty; expected a header line with order_id,"),
        (b"\xef\xbb\xbf", "orders.csv is empty"),
        (b"\n\n", "orders.csv is empty"),
        (
            b"a,b\n1,2\n",
            r"wrong columns \(missing: order_id, .*; unknown: a, b\); expected a header line with",
        ),
        (HEADER.replace(b"email", b"country"), r"\(missing: email; more than once: country\)"),
        (HEADER.replace(b"email", b"email,email"), r"\(more than once: email\)"),
        (HEADER.replace(b"\n", b",\n"), r"\(without a name, by a comma too many: 9\)"),
        (HEADER.replace(b"email", "email\u200b".encode()), r"\(missing: email; unknown: 'email\\u200b'\)"),
        (HEADER.replace(b"email", "email\ud800".encode(errors="surrogatepass")), r"unknown: 'email\\ud800'"),
        (HEADER.replace(b"email", b"x" * 9000), r"unknown: x{60}\)"),
        (HEADER.replace(b",", b";"), "its columns are separated by semicolons; save it with commas"),
        (
            b'"' + HEADER.rstrip().replace(b",", b'";"') + b'"\n',
            "separated by semicolons; save it with commas",
        ),
        (HEADER.replace(b",", b"\t"), "its columns are separated by tabs; save it with commas"),
        (HEADER.replace(b",", b"|"), "its columns are separated by vertical bars"),
        (
            b"sep=;\n" + HEADER.replace(b",", b";"),
            f"line 1: sep=; {EXCEL_NOTE}, and separate the columns with",
        ),
        (b"\xef\xbb\xbfsep=,\r\n" + HEADER, f"line 1: sep=, {EXCEL_NOTE}"),
        (HEADER.decode().encode("utf-16"), "is a text in UTF-16, .* save it as CSV in the encoding UTF-8"),
        (
            HEADER.decode().encode("utf-16-be"),
            "line 1 has NUL bytes, as UTF-16 has; save it in the encoding UTF-8",
        ),
        (b"PK\x03\x04\x14\0", "is a zip archive, as an Excel workbook is, and not CSV; save it as CSV"),
        (b"\x1f\x8b\x08\0", "is a gzip archive, and not CSV"),
        (
            HEADER + LINE + LINE.replace(b"Ada", b"Zo\xeb"),
            r"line 3: byte 0xeb is not UTF-8 \(in Latin-1 it is 'ë'\); save the file with the encoding UTF-8",
        ),
        (HEADER + LINE + b'"' + LINE, r"line 3: unexpected end of data \(the row begins in line 3\)"),
        (HEADER + LINE.replace(b"Ada", b'"Ada') + LINE * 9, "unexpected end .*begins in line 2.*double each"),
        (HEADER + LINE.replace(b"Ada", b'"A"d"a"'), "line 2: ',' expected after '\"'"),
        (HEADER + LINE + b'"' + LINE * 3000, "larger than field limit .*begins in line 3"),
        (
            HEADER + LINE.replace(b"Ada", b'"Ada' + b"x" * 200_000) + LINE,
            "line 2: a quote is open in a line of more than 131,072 bytes",
        ),
        (b"x" * 200_000, "line 1: The row is longer than 131,072 bytes"),
        (
            HEADER + LINE + LINE.replace(b"Ada", b"A\rda").replace(b"Blue", b'"Blue'),
            r"line 3: a carriage return \(CR\) outside quotes \(the row begins in line 3\)",
        ),
        ((HEADER + LINE).replace(b"\n", b"\r"), r"its lines end with a carriage return \(CR\) alone"),
        ((HEADER + LINE * 3000).replace(b"\n", b"\r"), r"its lines end with a carriage return \(CR\) alone"),
    ],
)
def test_a_file_with_a_broken_structure_is_refused_before_a_row_is_stored(
    shop: Path, content: bytes, message: str
):
    (shop / "orders.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        import_csv("orders.csv", batch_size=1)
    for parts in (1, 3):
        with pytest.raises(ValueError, match=message):
            begin_import("orders.csv", parts)
    assert stored() == []
    assert not (shop / "out").exists()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (LINE.replace(b"Blue", b"x" * 140_000), "The row is longer than 131,072 bytes"),
        (LINE.replace(b"Blue", b"x" * 2_000_000), "The row is longer than 131,072 bytes"),
        (LINE.replace(b"Blue mug", b'"' + b"x" * 140_000 + b'"'), "The row is longer than 131,072 bytes"),
        (
            LINE.replace(b"Blue", b"Bl\rue"),
            "The row has a carriage return (CR) outside quotes; a row ends with LF or CRLF",
        ),
        (
            LINE.replace(b"Ada", b'"A\nd""a"').replace(b"Blue", b"Bl\rue"),
            "The row has a carriage return (CR) outside quotes; a row ends with LF or CRLF",
        ),
        (LINE.replace(b",", b";"), "Expected 8 columns, found 1"),
    ],
    ids=[
        "long field",
        "very long field",
        "long quoted field",
        "CR",
        "CR after a quoted line break",
        "semicolons",
    ],
)
def test_one_row_that_cannot_be_read_is_rejected_and_no_other(any_shop: Path, bad: bytes, reason: str):
    lines = [LINE.replace(b"A-1", b"A-%d" % n) for n in range(1, 5)]
    (any_shop / "orders.csv").write_bytes(HEADER + b"".join([*lines[:2], bad, *lines[2:]]))
    for parts in (1, 2, 5):
        plan = begin_import("orders.csv", parts)
        for first, end in plan.ranges:
            import_part(plan.import_id, first, end, batch_size=1)
        result = finish_import(plan.import_id)
        assert (result["imported"], result["rejected"]) == (4, 1)
        assert stored() == ["A-1", "A-2", "A-3", "A-4"]
        (reject,) = rejects_of(any_shop)
        assert (reject["line"], reject["column"], reject["reason"]) == ("4", "", reason)
        assert reject["value"].startswith("A-1")
        assert len(reject["value"]) <= 200


def test_the_last_line_may_be_of_any_length_and_needs_no_line_break(shop: Path):
    (shop / "orders.csv").write_bytes(HEADER + LINE + b"x" * 140_000)
    result = import_csv("orders.csv")
    assert (result["imported"], result["rejected"]) == (1, 1)


@pytest.mark.parametrize("path", ["../orders.csv", "/etc/passwd", "missing.csv", ".", "link.csv", ""])
def test_a_path_that_is_no_file_in_the_data_folder_is_refused(shop: Path, path: str, tmp_path: Path):
    (tmp_path / "orders.csv").write_bytes(HEADER + LINE)
    (shop / "link.csv").symlink_to(tmp_path / "orders.csv")
    with pytest.raises(ValueError, match=r"inside|no such file in .*/data; there are "):
        import_csv(path)


def test_a_batch_size_or_a_number_of_parts_below_one_is_refused(shop: Path):
    write(shop / "orders.csv", [row(1)])
    with pytest.raises(ValueError, match="batch_size=0: must be at least 1"):
        import_csv("orders.csv", batch_size=0)
    for parts in (0, -1):
        for split in (split_byte_ranges, begin_import):
            with pytest.raises(ValueError, match=f"parts={parts}: must be at least 1"):
                split("orders.csv", parts)
    with reading() as session:
        assert session.scalar(select(func.count()).select_from(Import)) == 0


def test_a_file_that_grows_while_it_is_read_is_an_error_and_can_be_imported_again(shop: Path):
    path = shop / "orders.csv"
    write(path, mixed_rows(30))

    def append(done: int, total: int) -> None:
        with path.open("ab") as file:
            file.write(LINE.replace(b"A-1", b"A-31"))

    with pytest.raises(ValueError, match=r"orders\.csv has changed while it was read"):
        import_csv("orders.csv", batch_size=10, on_progress=append)
    write(path, mixed_rows(40))
    assert import_csv("orders.csv")["resumed_after_line"] is None
    assert_complete(shop, 40)


# --- Killed, and started again -----------------------------------------------------------------------


def killed(work: Callable[[], object]) -> bool:
    """Run `work` in a forked process. Return whether SIGKILL ended it; any other failure is an error."""
    process = FORK.Process(target=work)
    process.start()
    process.join(timeout=60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def import_and_die(number: int, moment: str) -> None:
    """Import, and end this process by SIGKILL before commit `number`, or after batch `number`."""
    count = 0

    def die(*_: object) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    if moment == "before commit":
        event.listen(engine(), "commit", die)
    import_csv(
        "orders.csv", import_id="one", batch_size=20, on_progress=die if moment == "after batch" else None
    )


# The commits: find no import, note it down, read it twice, five batches, the rejects file, the end.
@pytest.mark.parametrize(("moment", "times"), [("before commit", 11), ("after batch", 5)])
def test_an_import_killed_at_any_commit_is_complete_after_the_next_run(
    any_shop: Path, moment: str, times: int
):
    write(any_shop / "orders.csv", mixed_rows(100))
    for number in range(1, times + 1):
        assert killed(partial(import_and_die, number, moment))
        result = import_csv("orders.csv", import_id="one", batch_size=20)
        assert (result["imported"], result["replaced"], result["rejected"]) == (90, 0, 10)
        assert_complete(any_shop, 100)
        empty(any_shop)
    assert not killed(partial(import_and_die, times + 1, moment))
    assert_complete(any_shop, 100)


def empty(shop: Path) -> None:
    with writing() as session:
        for table in (Import, Order):
            session.execute(delete(table))
    shutil.rmtree(shop / "out")


def test_an_import_killed_from_outside_goes_on_where_it_was(any_shop: Path):
    write(any_shop / "orders.csv", mixed_rows(100))
    code = """
import sys
from services.order_import import import_csv

def report(done, total):
    print(done, flush=True)
    if done == 60:
        sys.stdin.read()  # the test kills this process here

import_csv("orders.csv", import_id="one", batch_size=20, on_progress=report)
"""
    environment = {
        "DATA_DIR": str(any_shop),
        "STATE_DIR": str(any_shop.parent / "state"),
        "DATABASE_URL": engine().url.render_as_string(hide_password=False),
    }
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout
        seen = [int(next(child.stdout)) for _ in range(3)]
        child.kill()
        assert child.wait(timeout=60) == -signal.SIGKILL
    assert seen == [20, 40, 60]
    assert len(stored()) == 54
    assert not (any_shop / "out").exists()

    done: list[int] = []
    result = import_csv(
        "orders.csv", import_id="one", batch_size=20, on_progress=lambda now, total: done.append(now)
    )
    assert done == [80, 100]
    assert (result["imported"], result["rejected"]) == (90, 10)
    assert result["resumed_after_line"] == 1 + 60 + 20  # the header, and 20 rows of two lines
    assert_complete(any_shop, 100)


def test_an_unfinished_import_of_a_file_that_has_changed_is_refused(shop: Path):
    write(shop / "orders.csv", mixed_rows(50))
    with pytest.raises(KeyboardInterrupt):
        import_csv("orders.csv", import_id="one", batch_size=20, on_progress=interrupt)
    write(shop / "orders.csv", mixed_rows(60))
    with pytest.raises(ValueError, match=r"orders\.csv has changed since its import began; start another"):
        import_csv("orders.csv", import_id="one")
    assert import_csv("orders.csv", import_id="two")["resumed_after_line"] is None
    assert_complete(shop, 60)


def interrupt(done: int, total: int) -> None:
    raise KeyboardInterrupt


# --- Byte ranges -------------------------------------------------------------------------------------


def awkward_rows(count: int) -> list[list[str]]:
    """Rows whose fields hold line breaks, and lines that look like rows of their own."""
    fake = ",".join(row(99_999, quantity="0"))
    products = ["Mug", f"Two\n{fake}\n{fake}", 'Quote " and "" more\n"', "\n\n\n,,\r\n"]
    return [
        row(n, product="x" + products[n % 4] + "x", quantity="0" if n % 10 == 0 else "1")
        for n in range(1, count + 1)
    ]


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 40, 1000])
def test_byte_ranges_give_the_same_as_one_import(shop: Path, parts: int):
    write(shop / "orders.csv", awkward_rows(40))
    expected = import_csv("orders.csv"), stored(), rejects_of(shop)
    assert len(expected[1]) == 36
    empty(shop)

    plan = begin_import("orders.csv", parts)
    assert plan.ranges == split_byte_ranges("orders.csv", parts)
    assert len(plan.ranges) == min(parts, 40)
    results = [import_part(plan.import_id, *part) for part in reversed(plan.ranges)]
    assert sum(result["accepted"] for result in results) == 36
    assert sum(result["rejected"] for result in results) == 4
    assert (finish_import(plan.import_id), stored(), rejects_of(shop)) == expected


def test_a_range_that_the_split_did_not_give_is_refused(shop: Path):
    fake = ",".join(row(99_999))
    write(shop / "orders.csv", [row(1, product=f"a\n{fake}\nb"), row(2), row(3)])
    content = (shop / "orders.csv").read_bytes()
    plan = begin_import("orders.csv", 2)
    (_, cut), (_, size) = plan.ranges
    assert content[cut:].startswith(b"A-")
    cuts = {-1, 0, 1, len(HEADER) - 1, len(HEADER), content.index(fake.encode()), cut - 1, cut, cut + 1, size}
    for first in cuts:
        for end in {*cuts, size + 1} - {end for begin, end in plan.ranges if begin == first}:
            message = (
                f"first={first}, end={end}: no part of the import of orders.csv; take one of its ranges: "
            )
            with pytest.raises(ValueError, match=re.escape(f"{message}(0, {cut}), ({cut}, {size})")):
                import_part(plan.import_id, first, end)
    with pytest.raises(ValueError, match="import_id='other': there is no such import"):
        import_part("other", 0, cut)
    assert stored() == []


def test_an_id_belongs_to_one_file(shop: Path):
    for name in ("orders.csv", "more.csv"):
        write(shop / name, [row(1)])
    begin_import("orders.csv", 1, "one")
    with pytest.raises(ValueError, match=r"import_id='one': it is an import of orders\.csv; give another id"):
        import_csv("more.csv", import_id="one")
    assert stored() == []


def test_parts_are_imported_by_several_processes_at_once(any_shop: Path):
    write(any_shop / "orders.csv", mixed_rows(2_000))
    plan = begin_import("orders.csv", 4)
    with ProcessPoolExecutor(4, mp_context=FORK) as pool:
        list(pool.map(partial(import_small_batches, plan.import_id), plan.ranges))
    result = finish_import(plan.import_id)
    assert (result["imported"], result["replaced"], result["rejected"]) == (1_800, 0, 200)
    assert_complete(any_shop, 2_000)


def import_small_batches(import_id: str, part: tuple[int, int]) -> PartResult:
    return import_part(import_id, *part, batch_size=50)


def test_a_part_that_is_killed_and_run_again_leaves_no_gap_and_no_duplicate(any_shop: Path):
    write(any_shop / "orders.csv", mixed_rows(100))
    plan = begin_import("orders.csv", 2)
    first, second = plan.ranges

    def die(done: int, total: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    assert killed(lambda: import_part(plan.import_id, *second, batch_size=20, on_progress=die))
    import_small_batches(plan.import_id, first)
    with pytest.raises(
        ValueError, match=rf"is not finished in the byte ranges \[\({second[0]}, {second[1]}\)\]"
    ):
        finish_import(plan.import_id)
    assert not (any_shop / "out").exists()
    assert import_small_batches(plan.import_id, second)["resumed_after_line"]
    assert finish_import(plan.import_id)["imported"] == 90
    assert_complete(any_shop, 100)


# --- One order in several rows --------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_row_later_in_the_file_wins_in_whatever_order_the_parts_run(shop: Path, order: tuple[int, ...]):
    write(shop / "orders.csv", [row(n % 5, quantity=str(n + 1)) for n in range(40)])
    plan = begin_import("orders.csv", 4)
    assert len(plan.ranges) == 4
    for number in order:
        import_part(plan.import_id, *plan.ranges[number], batch_size=3)
    result = finish_import(plan.import_id)
    assert (result["imported"], result["replaced"], result["rejected"]) == (5, 35, 0)
    assert quantities() == {f"A-{n}": 36 + n for n in range(5)}


def quantities() -> dict[str, int]:
    with reading() as session:
        return dict(session.execute(select(Order.order_id, Order.quantity)).all())


def test_the_same_orders_in_all_parts_do_not_lock_the_processes_out(any_shop: Path):
    orders = [row(n) for n in range(200)]
    last = [row(n, quantity="7") for n in reversed(range(200))]
    write(any_shop / "orders.csv", [*orders, *reversed(orders), *orders, *last])
    plan = begin_import("orders.csv", 4)
    with ProcessPoolExecutor(4, mp_context=FORK) as pool:
        list(pool.map(partial(import_small_batches, plan.import_id), plan.ranges))
    result = finish_import(plan.import_id)
    assert (result["imported"], result["replaced"]) == (200, 600)
    assert set(quantities().values()) == {7}


def test_an_earlier_import_that_goes_on_late_does_not_replace_a_later_one(any_shop: Path):
    write(any_shop / "old.csv", [row(n, quantity="1") for n in range(30)])
    write(any_shop / "new.csv", [row(n, quantity="2") for n in range(10, 20)])
    with pytest.raises(KeyboardInterrupt):
        import_csv("old.csv", import_id="old", batch_size=5, on_progress=interrupt)
    assert import_csv("new.csv")["imported"] == 10
    result = import_csv("old.csv", import_id="old")
    assert (result["imported"], result["replaced"], result["rejected"]) == (20, 10, 0)
    assert quantities() == {f"A-{n}": 2 if 10 <= n < 20 else 1 for n in range(30)}
    assert import_csv("old.csv")["imported"] == 30  # another call: now it is the later one
    assert set(quantities().values()) == {1}


def test_orders_that_were_not_imported_give_way_to_an_import(shop: Path):
    with writing() as session:
        session.add(Order(**OrderRow.model_validate(dict(zip(COLUMNS, row(1), strict=True))).model_dump()))
    write(shop / "orders.csv", [row(1, quantity="9")])
    assert import_csv("orders.csv")["imported"] == 1
    assert quantities() == {"A-1": 9}


# --- Delivered twice ------------------------------------------------------------------------------------


def test_two_runs_of_one_import_share_the_work_and_return_the_same_result(any_shop: Path):
    write(any_shop / "orders.csv", mixed_rows(100))
    seen: list[tuple[str, int]] = []
    second: list[ImportResult] = []

    def help_out(done: int, total: int) -> None:
        seen.append(("second", done))

    def start_another(done: int, total: int) -> None:
        seen.append(("first", done))
        if done == 40:
            second.append(import_csv("orders.csv", import_id="one", batch_size=20, on_progress=help_out))

    first = import_csv("orders.csv", import_id="one", batch_size=20, on_progress=start_another)
    assert seen == [
        *[("first", 20), ("first", 40)],
        *[("second", done) for done in (60, 80, 100)],
        ("first", 100),
    ]
    assert second == [first]
    assert (first["imported"], first["rejected"]) == (90, 10)
    assert_complete(any_shop, 100)


@pytest.mark.parametrize("parts", [1, 3])
def test_processes_that_do_all_steps_at_the_same_moment_get_the_same_result(any_shop: Path, parts: int):
    write(any_shop / "orders.csv", mixed_rows(1_000))
    barrier = FORK.Barrier(4)
    results = FORK.SimpleQueue()

    def run() -> None:
        barrier.wait(timeout=30)
        plan = begin_import("orders.csv", parts, "one")
        for part in plan.ranges:
            import_small_batches("one", part)
        results.put(finish_import("one"))

    processes = [FORK.Process(target=run) for _ in range(4)]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert found == [found[0]] * 4
    assert (found[0]["imported"], found[0]["replaced"], found[0]["rejected"]) == (900, 0, 100)
    assert_complete(any_shop, 1_000)


def test_a_finished_import_that_is_delivered_again_changes_nothing(any_shop: Path):
    path = any_shop / "orders.csv"
    write(path, mixed_rows(30))
    result = import_csv("orders.csv", import_id="one")
    rejects = rejects_of(any_shop)
    write(any_shop / "more.csv", [row(1, quantity="9")])
    import_csv("more.csv")
    path.unlink()  # it has been dealt with
    (any_shop / "out/rejects/orders.csv").unlink()
    before = quantities()
    assert import_csv("orders.csv", import_id="one") == result
    assert quantities() == before
    assert not (any_shop / "out/rejects/orders.csv").exists()
    write(path, mixed_rows(30))
    import_csv("orders.csv")
    assert rejects_of(any_shop) == rejects


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("seed", range(60))
def test_any_order_of_deliveries_and_crashes_ends_with_the_same_table(shop: Path, seed: int):
    """A delivery is a step of an import, which may be cut off after some batches, and come again later.

    Each step comes at least once to its end, as a broker with redelivery promises. A chord's body comes
    after all parts; its copies, and those of parts and of the beginning, come at any time after.
    """
    dice = random.Random(seed)
    write(shop / "orders.csv", [row(n % 7, quantity=str(n % 11)) for n in range(60)])
    expected = {f"A-{n}": max(range(n, 60, 7), key=lambda k: k if k % 11 else -1) % 11 for n in range(7)}
    rejected = sum(n % 11 == 0 for n in range(60))
    plan = begin_import("orders.csv", dice.randint(1, 6), "one")

    def deliver(step: Callable[..., object], *arguments: Any, whole: bool) -> object:
        left = 10_000 if whole else dice.randint(1, 3)

        def cut_off(done: int, total: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Interrupted

        options = {"batch_size": dice.randint(1, 9), "on_progress": cut_off} if step is import_part else {}
        try:
            return step(*arguments, **options)
        except Interrupted:
            return None

    def copies(step: Callable[..., object], *arguments: Any) -> list[partial[object]]:
        delivery = partial(deliver, step, *arguments)
        return [partial(delivery, whole=False) for _ in range(dice.randint(0, 3))] + [
            partial(delivery, whole=True)
        ]

    header = [copy for first, end in plan.ranges for copy in copies(import_part, "one", first, end)]
    header += copies(begin_import, "orders.csv", 3, "one")
    dice.shuffle(header)
    for delivery in header:
        delivery()
    late = header + copies(finish_import, "one")
    dice.shuffle(late)
    result = finish_import("one")
    for delivery in late:
        delivery()
    assert finish_import("one") == result
    assert quantities() == expected
    assert (result["imported"], result["replaced"], result["rejected"]) == (7, 53 - rejected, rejected)
    assert len(rejects_of(shop)) == rejected
    with reading() as session:
        assert session.scalar(select(func.count()).select_from(Reject)) == 0


# --- A full disk -------------------------------------------------------------------------------------


def test_a_database_that_is_full_keeps_the_finished_batches_and_can_go_on(shop: Path):
    write(shop / "orders.csv", mixed_rows(3_000))
    with engine().connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 30}")
    with pytest.raises(OperationalError, match="database or disk is full"):
        import_csv("orders.csv", import_id="one", batch_size=100)
    half = len(stored())
    assert 0 < half < 2_700
    assert half % 90 == 0  # whole batches

    engine().dispose()  # the limit goes with the connection
    assert import_csv("orders.csv", import_id="one", batch_size=100)["resumed_after_line"]
    assert_complete(shop, 3_000)


def test_a_disk_that_is_full_for_the_rejects_file_costs_no_order_and_no_reject(shop: Path):
    write(shop / "orders.csv", mixed_rows(3_000))
    plan = begin_import("orders.csv", 1)
    import_part(plan.import_id, *plan.ranges[0])
    with pytest.raises(OSError, match="File too large"), no_file_over(5_000):
        finish_import(plan.import_id)
    assert os.listdir(shop / "out" / "rejects") == []
    finish_import(plan.import_id)
    assert_complete(shop, 3_000)


@pytest.mark.parametrize("form", ["csv", "jsonl", "xlsx"])
def test_a_full_disk_leaves_the_old_export_and_nothing_else(shop: Path, form: str):
    write(shop / "orders.csv", mixed_rows(1_000))
    import_csv("orders.csv")
    old = shop / "out" / "exports" / f"orders.{form}"
    old.parent.mkdir()
    old.write_text("old")
    with pytest.raises(OSError, match="File too large"), no_file_over(10_000):
        export_orders(form)
    assert old.read_text() == "old"
    assert os.listdir(old.parent) == [old.name]


# --- Export ------------------------------------------------------------------------------------------


def test_csv_can_be_imported_again_and_gives_the_same(any_shop: Path):
    write(any_shop / "orders.csv", awkward_rows(20))
    import_csv("orders.csv")
    result = export_orders("csv")
    first = (any_shop / "out/exports/orders.csv").read_bytes()
    assert result == {"path": "out/exports/orders.csv", "rows": 18, "bytes": len(first)}
    with writing() as session:
        session.execute(delete(Order))
    assert import_csv(result["path"])["imported"] == 18
    export_orders("csv")
    assert (any_shop / "out/exports/orders.csv").read_bytes() == first


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "＝1"])  # noqa: RUF001
def test_a_formula_is_text_in_every_format(shop: Path, name: str):
    write(shop / "orders.csv", [row(1, customer=name)])
    import_csv("orders.csv")
    for form in ("csv", "jsonl", "xlsx"):
        export_orders(form)
    with (shop / "out/exports/orders.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["customer"] == f"'{name}"
    assert json.loads((shop / "out/exports/orders.jsonl").read_text())["customer"] == name
    with zipfile.ZipFile(shop / "out/exports/orders.xlsx") as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
    assert f"<t>{name}</t>" in sheet
    assert "<f>" not in sheet


def test_json_lines_keep_prices_exact_and_times_in_utc(any_shop: Path):
    write(any_shop / "orders.csv", [row(1, unit_price="0.10", ordered_at="2026-10-03T01:00:00+08:00")])
    import_csv("orders.csv")
    export_orders("jsonl")
    (line,) = (any_shop / "out/exports/orders.jsonl").read_text().splitlines()
    order = json.loads(line)
    assert list(order) == COLUMNS
    assert (order["unit_price"], order["ordered_at"]) == ("0.10", "2026-10-02T17:00:00+00:00")


def test_an_export_of_no_orders_has_a_header(shop: Path):
    assert export_orders("csv")["rows"] == 0
    assert (shop / "out/exports/orders.csv").read_text().splitlines() == [",".join(COLUMNS)]


def test_an_unknown_format_is_refused_by_name(shop: Path):
    with pytest.raises(ValueError, match="format='xml': use one of csv, jsonl, xlsx"):
        export_orders("xml")


def test_more_orders_than_an_excel_sheet_holds_are_refused(shop: Path, monkeypatch: pytest.MonkeyPatch):
    write(shop / "orders.csv", [row(1), row(2), row(3)])
    import_csv("orders.csv")
    monkeypatch.setattr(order_export, "EXCEL_MAX_ROWS", 3)
    with pytest.raises(
        ValueError, match=r"3 orders and a header .* 3 rows of an Excel sheet; use csv or jsonl"
    ):
        export_orders("xlsx")
    assert not (shop / "out" / "exports").exists()


def test_export_progress_ends_with_all_rows(shop: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(order_export, "FETCH_ROWS", 10)
    write(shop / "orders.csv", [row(n) for n in range(25)])
    import_csv("orders.csv")
    seen: list[Any] = []
    export_orders("csv", on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 25), (20, 25), (25, 25)]
