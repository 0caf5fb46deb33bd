"""Import and export: nothing is lost, doubled or half-written, whatever comes in, whenever it is killed."""

import csv
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
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
    ImportTakenOver,
    import_csv,
    merge_rejects,
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
        "first_byte": 0,
        "end_byte": (any_shop / "orders.csv").stat().st_size,
        "imported": 2,
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
            "reason": "Input should be greater than or equal to 1",
        },
    ]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("order_id", ""),
        ("order_id", "A 1"),
        ("customer", "x" * 201),
        ("customer", "a\0b"),
        ("email", "ada"),
        ("email", "ada@example.com\nBcc: all@example.com"),
        ("country", "de"),
        ("quantity", "1.5"),
        ("quantity", "99999999999999999999"),
        ("unit_price", "1,50"),
        ("unit_price", "1.505"),
        ("unit_price", "NaN"),
        ("unit_price", "-1"),
        ("ordered_at", "2026-10-03 14:05"),
        ("ordered_at", "20261003"),
        ("ordered_at", "2026-02-30T00:00:00Z"),
    ],
)
def test_a_bad_value_is_rejected_with_its_column(shop: Path, column: str, value: str):
    write(shop / "orders.csv", [row(1), row(2, **{column: value})])
    assert import_csv("orders.csv")["rejected"] == 1
    (reject,) = rejects_of(shop)
    assert (reject["line"], reject["column"]) == ("3", column)
    assert reject["reason"]
    assert stored() == ["A-1"]


def test_a_nul_is_rejected_on_every_database(any_shop: Path):
    write(any_shop / "orders.csv", [row(1, customer="a\0b")])
    import_csv("orders.csv")
    (reject,) = rejects_of(any_shop)
    assert (reject["value"], reject["reason"]) == (r"a\0b", "Expected 1 to 200 characters, none of them NUL")


def test_a_row_with_too_few_or_too_many_columns_is_rejected(shop: Path):
    write(shop / "orders.csv", [row(1)[:-1], row(2), [*row(3), "more"]])
    assert import_csv("orders.csv")["imported"] == 1
    reasons = [reject["reason"] for reject in rejects_of(shop)]
    assert reasons == ["The row has 7 columns instead of 8", "The row has 9 columns instead of 8"]


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


def test_a_later_row_replaces_an_earlier_one_with_the_same_order_id(any_shop: Path):
    write(any_shop / "orders.csv", [row(1, quantity="1"), row(2), row(1, quantity="9")])
    import_csv("orders.csv")
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "orders.csv is empty; expected a header line with order_id,"),
        (b"\xef\xbb\xbf", "orders.csv is empty"),
        (b"a,b\n1,2\n", "wrong columns .missing: order_id, .*; unknown: a, b.; expected a header"),
        (HEADER.replace(b",", b";"), "wrong columns"),
        (HEADER.replace(b"email", b"country"), "missing: email; unknown: none"),
        (HEADER.decode().encode("utf-16"), "line 1: byte 0xff is not UTF-8; save the file"),
        (HEADER + LINE + LINE.replace(b"Ada", b"Zo\xeb"), "line 3: byte 0xeb is not UTF-8; save the file"),
        (HEADER + LINE + b'"' + LINE, "line 3: unexpected end of data .the row begins in line 3."),
        (HEADER + LINE.replace(b"Ada", b'"Ada') + LINE * 9, "unexpected end .*begins in line 2.*double each"),
        (HEADER + LINE.replace(b"Ada", b'"A"d"a"'), "line 2: ',' expected after '\"'"),
        (HEADER + LINE + b'"' + LINE * 3000, "larger than field limit .*begins in line 3"),
        (HEADER + LINE + b"x" * 2_000_000, "line 3 is longer than 1 MB"),
        ((HEADER + LINE).replace(b"\n", b"\r"), "new-line character seen in unquoted field"),
    ],
)
def test_a_file_with_a_broken_structure_is_refused_before_a_row_is_stored(
    shop: Path, content: bytes, message: str
):
    (shop / "orders.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        import_csv("orders.csv", batch_size=1)
    with pytest.raises(ValueError, match=message):
        split_byte_ranges("orders.csv", 2)
    assert stored() == []
    assert not (shop / "out").exists()


@pytest.mark.parametrize("path", ["../orders.csv", "/etc/passwd", "missing.csv", ".", "link.csv", ""])
def test_a_path_that_is_no_file_in_the_data_folder_is_refused(shop: Path, path: str, tmp_path: Path):
    (tmp_path / "orders.csv").write_bytes(HEADER + LINE)
    (shop / "link.csv").symlink_to(tmp_path / "orders.csv")
    with pytest.raises(ValueError, match=r"folder|inside"):
        import_csv(path)


def test_a_batch_size_or_a_number_of_parts_below_one_is_refused(shop: Path):
    write(shop / "orders.csv", [row(1)])
    with pytest.raises(ValueError, match="batch_size=0: must be at least 1"):
        import_csv("orders.csv", batch_size=0)
    with pytest.raises(ValueError, match="parts=0: must be at least 1"):
        split_byte_ranges("orders.csv", 0)


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
    import_csv("orders.csv", batch_size=20, on_progress=die if moment == "after batch" else None)


# The commits: the beginning, five batches, the rejects file, the end.
@pytest.mark.parametrize(("moment", "times"), [("before commit", 8), ("after batch", 5)])
def test_an_import_killed_at_any_commit_is_complete_after_the_next_run(
    any_shop: Path, moment: str, times: int
):
    write(any_shop / "orders.csv", mixed_rows(100))
    for number in range(1, times + 1):
        assert killed(partial(import_and_die, number, moment))
        import_csv("orders.csv", batch_size=20)
        assert_complete(any_shop, 100)
        empty(any_shop)
    assert not killed(partial(import_and_die, times + 1, moment))
    assert_complete(any_shop, 100)


def empty(shop: Path) -> None:
    with writing() as session:
        for table in (Reject, Import, Order):
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

import_csv("orders.csv", batch_size=20, on_progress=report)
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
    result = import_csv("orders.csv", batch_size=20, on_progress=lambda now, total: done.append(now))
    assert done == [80, 100]
    assert (result["imported"], result["rejected"]) == (90, 10)
    assert result["resumed_after_line"] == 1 + 60 + 20  # the header, and 20 rows of two lines
    assert_complete(any_shop, 100)


def test_a_second_run_takes_over_and_the_first_one_stops(any_shop: Path):
    write(any_shop / "orders.csv", mixed_rows(100))

    def start_again(done: int, total: int) -> None:
        if done == 40:
            assert import_csv("orders.csv", batch_size=20)["imported"] == 90

    with pytest.raises(ImportTakenOver, match=r"orders\.csv was started again elsewhere"):
        import_csv("orders.csv", batch_size=20, on_progress=start_again)
    assert_complete(any_shop, 100)


def test_an_interrupted_import_of_a_file_that_has_changed_begins_anew(shop: Path):
    write(shop / "orders.csv", mixed_rows(50))
    with pytest.raises(KeyboardInterrupt):
        import_csv("orders.csv", batch_size=20, on_progress=interrupt)
    write(shop / "orders.csv", mixed_rows(60))
    assert import_csv("orders.csv")["resumed_after_line"] is None
    assert_complete(shop, 60)
    with reading() as session:
        assert session.scalar(select(func.count()).select_from(Import)) == 1


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
    import_csv("orders.csv")
    expected = stored(), rejects_of(shop)
    assert len(expected[0]) == 36
    empty(shop)

    ranges = split_byte_ranges("orders.csv", parts)
    assert len(ranges) == min(parts, 40)
    results = [import_csv("orders.csv", byte_range=part) for part in reversed(ranges)]
    merged = merge_rejects("orders.csv", results)
    assert (merged["imported"], merged["rejected"]) == (36, 4)
    assert (stored(), rejects_of(shop)) == expected


def test_every_place_between_two_rows_is_a_right_boundary_and_every_other_is_refused(shop: Path):
    write(shop / "orders.csv", [row(1, product="a\nb"), row(2)])
    content = (shop / "orders.csv").read_bytes()
    (_, (boundary, end)) = split_byte_ranges("orders.csv", 2)
    assert content[boundary:].startswith(b"A-2")
    for byte in {1, len(HEADER) - 1, boundary - 1, boundary + 1, end, end + 1, -5} - {end}:
        with pytest.raises(ValueError, match="take ranges from split_byte_ranges"):
            import_csv("orders.csv", byte_range=(byte, end))
    assert stored() == []


def test_byte_ranges_are_imported_by_several_processes_at_once(any_shop: Path):
    write(any_shop / "orders.csv", mixed_rows(2_000))
    ranges = split_byte_ranges("orders.csv", 4)
    with ProcessPoolExecutor(4, mp_context=FORK) as pool:
        results = list(pool.map(import_part, ranges))
    merged = merge_rejects("orders.csv", json.loads(json.dumps(results)))
    assert (merged["imported"], merged["rejected"]) == (1_800, 200)
    assert_complete(any_shop, 2_000)


def import_part(part: tuple[int, int]) -> ImportResult:
    return import_csv("orders.csv", byte_range=part, batch_size=50)


def test_the_same_orders_in_all_ranges_do_not_lock_the_processes_out(any_shop: Path):
    orders = [row(n) for n in range(200)]
    write(any_shop / "orders.csv", [*orders, *reversed(orders), *orders, *reversed(orders)])
    with ProcessPoolExecutor(4, mp_context=FORK) as pool:
        results = list(pool.map(import_part, split_byte_ranges("orders.csv", 4)))
    assert merge_rejects("orders.csv", results)["imported"] == 800
    assert len(stored()) == 200


def test_a_range_that_is_killed_and_run_again_leaves_no_gap_and_no_duplicate(any_shop: Path):
    write(any_shop / "orders.csv", mixed_rows(100))
    first, second = split_byte_ranges("orders.csv", 2)

    def die(done: int, total: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    assert killed(lambda: import_csv("orders.csv", byte_range=second, batch_size=20, on_progress=die))
    results = [import_part(first)]
    with pytest.raises(ValueError, match="not finished for the byte ranges"):
        merge_rejects("orders.csv", [*results, results[0] | {"first_byte": second[0], "end_byte": second[1]}])
    results.append(import_part(second))
    assert results[1]["resumed_after_line"]
    for _ in range(2):  # the callback may be delivered twice as well
        merge_rejects("orders.csv", results)
        assert_complete(any_shop, 100)


def test_ranges_that_do_not_make_up_the_file_are_refused(shop: Path):
    write(shop / "orders.csv", mixed_rows(30))
    results = [import_part(part) for part in split_byte_ranges("orders.csv", 3)]
    for some in ([], results[:2], results[1:], [*results, results[0]]):
        with pytest.raises(ValueError, match=r"do not make up all .* bytes of orders\.csv"):
            merge_rejects("orders.csv", some)
    assert not (shop / "out").exists()


# --- A full disk -------------------------------------------------------------------------------------


def test_a_database_that_is_full_keeps_the_finished_batches_and_can_go_on(shop: Path):
    write(shop / "orders.csv", mixed_rows(3_000))
    with engine().connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 30}")
    with pytest.raises(OperationalError, match="database or disk is full"):
        import_csv("orders.csv", batch_size=100)
    half = len(stored())
    assert 0 < half < 2_700
    assert half % 90 == 0  # whole batches

    engine().dispose()  # the limit goes with the connection
    assert import_csv("orders.csv", batch_size=100)["resumed_after_line"]
    assert_complete(shop, 3_000)


def test_a_disk_that_is_full_for_the_rejects_file_costs_no_order_and_no_reject(shop: Path):
    write(shop / "orders.csv", mixed_rows(3_000))
    part = split_byte_ranges("orders.csv", 1)
    results = [import_csv("orders.csv", byte_range=part[0])]
    with pytest.raises(OSError, match="File too large"), no_file_over(5_000):
        merge_rejects("orders.csv", results)
    assert os.listdir(shop / "out" / "rejects") == []
    merge_rejects("orders.csv", results)
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
