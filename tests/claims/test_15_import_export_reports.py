"""The claims of notebook 15: tables in and out of a real database, on real workers."""

import csv
import json
import tracemalloc
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from itertools import permutations
from pathlib import Path

import pytest
from celery import chord
from pydantic import TypeAdapter
from sqlalchemy import delete, func, select

from lab.evidence import log_lines
from lab.sandbox import Sandbox
from services.database import migrate, reading, writing
from services.models import Import, ImportPart, Order
from services.order_import import COLUMNS, begin_import, import_csv
from tasks.realworld_tasks import export_data, generate_report, import_data, import_part, merge_parts
from tests.waiting import wait_for, wait_until_idle

QUEUE = "realworld"
FORMULA = '=HYPERLINK("https://example.com/steal", "Click here")'


@pytest.fixture(autouse=True)
def database(data: Path) -> None:
    """Make the tables of an empty database."""
    migrate()


def row(number: int, **changes: object) -> list[object]:
    """Return order `number`. Each tenth is bad, and its product has a line break."""
    values: dict[str, object] = {
        "order_id": f"A-{number}",
        "customer": "Ada",
        "email": "ada@example.com",
        "country": "GB",
        "product": "Desk lamp\nwarm white" if number % 10 == 0 else "Blue mug",
        "quantity": 0 if number % 10 == 0 else 1,
        "unit_price": "8.40",
        "ordered_at": "2026-05-03T14:05:00Z",
    }
    return [(values | changes)[column] for column in COLUMNS]


def write(path: Path, rows: list[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def orders() -> list[str]:
    """Return the ids of all orders in the database."""
    with reading() as session:
        return list(session.scalars(select(Order.order_id).order_by(Order.order_id)))


def rejects(data: Path, name: str = "orders.csv") -> list[dict[str, str]]:
    """Return the lines of a rejects file."""
    with (data / "out/rejects" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- import ---


def test_a_bad_row(sandbox: Sandbox, data: Path) -> None:
    """15.1 A bad row does not stop the others: it goes into the rejects file, with its line, its column, its
    value and the reason.
    """
    write(data / "orders.csv", [row(1), row(2, quantity="two"), row(3, country="Germany"), row(4)])
    sandbox.start_worker([QUEUE])
    result = import_data.delay("orders.csv").get(timeout=30)
    assert (result["imported"], result["rejected"]) == (2, 2)
    assert orders() == ["A-1", "A-4"]
    bad = rejects(data)
    assert [(reject["line"], reject["column"], reject["value"]) for reject in bad] == [
        ("3", "quantity", "two"),
        ("4", "country", "Germany"),
    ]
    assert ["whole number" in bad[0]["reason"], "2 capital letters" in bad[1]["reason"]] == [True, True]


def test_forms(sandbox: Sandbox, data: Path) -> None:
    """15.11 A number or a moment in another form than the column states is refused, though Python could read
    it.
    """
    odd = [
        ("quantity", "1_000"),
        ("quantity", "٣"),
        ("unit_price", "1_0.5"),
        ("ordered_at", "20260304050607"),
    ]
    assert [int("1_000"), int("٣"), Decimal("1_0.5")] == [1000, 3, Decimal("10.5")]
    assert TypeAdapter(datetime).validate_python("20260304050607").year == 2612
    write(data / "orders.csv", [row(1), *(row(2, **{column: value}) for column, value in odd)])
    sandbox.start_worker([QUEUE])
    result = import_data.delay("orders.csv").get(timeout=30)
    assert (result["imported"], result["rejected"]) == (1, 4)
    assert [(reject["column"], reject["value"]) for reject in rejects(data)] == odd


def test_a_broken_structure(sandbox: Sandbox, data: Path) -> None:
    """15.2 A file with a broken structure is refused before its first row is stored."""
    write(data / "orders.csv", [row(number) for number in range(1, 301)])
    with (data / "orders.csv").open("a") as file:
        file.write('A-301,"Ada,ada@example.com,GB,Blue mug,1,8.40,2026-05-03T14:05:00Z\n')
    sandbox.start_worker([QUEUE])
    with pytest.raises(ValueError, match=r"orders\.csv, line \d+: unexpected end of data"):
        import_data.delay("orders.csv", batch_size=10).get(timeout=30)
    assert orders() == []
    assert not (data / "out").exists()


def test_a_task_that_becomes_a_chord(sandbox: Sandbox, data: Path) -> None:
    """15.3 A task that replaces itself by a chord keeps its id: whoever waits for the task gets the result of
    the chord's body.
    """
    write(data / "orders.csv", [row(number) for number in range(1, 101)])
    worker = sandbox.start_worker([QUEUE])
    result = import_data.delay("orders.csv", parts=3)
    whole = result.get(timeout=30)
    assert (whole["imported"], whole["rejected"], whole["rejects"]) == (90, 10, "out/rejects/orders.csv")
    mine = log_lines(worker, result.id)
    received = [line for line in mine if "received" in line]
    assert ["import_data[" in received[0], "merge_parts[" in received[1]] == [True, True]
    assert worker.log.read_text().count("import_part[") >= 3


def test_byte_ranges_give_the_same(sandbox: Sandbox, data: Path) -> None:
    """15.4 An import in byte ranges stores the same orders and writes the same rejects as an import in one
    task.
    """
    write(data / "orders.csv", [row(number) for number in range(1, 501)])
    sandbox.start_worker([QUEUE])
    outcomes = []
    for parts in (1, 2, 7):
        result = import_data.delay("orders.csv", parts=parts, batch_size=50).get(timeout=30)
        with writing() as session:
            found = session.scalar(select(func.count()).select_from(ImportPart))
            assert found == parts
            outcomes.append((result, orders(), rejects(data)))
            for table in (Import, Order):
                session.execute(delete(table))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    _, stored, refused = outcomes[0]
    assert (len(stored), len(refused)) == (450, 50)


def test_a_range_in_the_middle_of_a_row(sandbox: Sandbox, data: Path) -> None:
    """15.5 A byte range that begins in the middle of a row is refused."""
    write(data / "orders.csv", [row(number) for number in range(1, 11)])
    plan = begin_import("orders.csv", 2)
    [_, (begin, end)] = plan.ranges
    sandbox.start_worker([QUEUE])
    for byte in (begin - 1, begin + 1):
        with pytest.raises(ValueError, match=f"first={byte}, end={end}: no part of the import of orders.csv"):
            import_part.delay(plan.import_id, byte, end).get(timeout=30)
    assert orders() == []
    assert import_part.delay(plan.import_id, begin, end).get(timeout=30)["accepted"] > 0


def test_an_order_in_two_rows(sandbox: Sandbox, data: Path) -> None:
    """15.12 Of two rows with the same order id, the later one in the file wins, in whatever order the parts
    run.
    """
    write(data / "orders.csv", [row(number % 2 + 1, quantity=number + 1) for number in range(12)])
    sandbox.start_worker([QUEUE])
    for sequence in permutations(range(3)):
        plan = begin_import("orders.csv", 3)
        assert len(plan.ranges) == 3
        for number in sequence:
            import_part.delay(plan.import_id, *plan.ranges[number]).get(timeout=30)
        result = merge_parts.delay(plan.import_id).get(timeout=30)
        assert (result["imported"], result["replaced"]) == (2, 10)
        with reading() as session:
            assert session.scalars(select(Order.quantity).order_by(Order.order_id)).all() == [11, 12]
        with writing() as session:
            session.execute(delete(Order))


def test_every_message_twice(sandbox: Sandbox, data: Path) -> None:
    """15.13 When every message of an import is delivered twice, there is one result, and each row is counted
    once.
    """
    for name, begin in [("a.csv", 1), ("b.csv", 501), ("orders.csv", 1001)]:
        write(data / name, [row(number) for number in range(begin, begin + 500)])
    plan = begin_import("orders.csv", 3)
    header = [import_part.s(plan.import_id, first, end, batch_size=20) for first, end in plan.ranges]
    results = [
        import_data.delay("a.csv", parts=1, batch_size=20),
        import_data.delay("b.csv", parts=3, batch_size=20),
        chord(header)(merge_parts.si(plan.import_id)),
    ]
    broker = sandbox.broker.client()
    messages = broker.lrange(QUEUE, 0, -1)
    assert len(messages) == 5  # two whole imports, and the parts of a third
    broker.rpush(QUEUE, *messages)
    worker = sandbox.start_worker([QUEUE])
    for result in results:
        whole = result.get(timeout=30)
        assert (whole["imported"], whole["replaced"], whole["rejected"]) == (450, 0, 50)
    wait_until_idle(sandbox, QUEUE)
    merge_parts.apply_async((plan.import_id,), task_id=results[-1].id)
    log_lines(worker, results[-1].id, times=2)
    assert results[-1].get(timeout=10) == whole
    assert len(orders()) == 3 * 450
    lines = [reject["line"] for reject in rejects(data)]
    assert (len(lines), len(set(lines))) == (50, 50)


# --- export and report ---


def test_a_formula_in_an_export(sandbox: Sandbox, data: Path) -> None:
    """15.6 The CSV export puts an apostrophe before a text that a spreadsheet would run as a formula; JSON
    Lines keep the text as it is.
    """
    write(data / "orders.csv", [row(1, customer=FORMULA)])
    sandbox.start_worker([QUEUE])
    import_data.delay("orders.csv").get(timeout=30)
    exported = export_data.delay("csv").get(timeout=30)
    with (data / exported["path"]).open(newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["customer"] == f"'{FORMULA}"
    exported = export_data.delay("jsonl").get(timeout=30)
    assert json.loads((data / exported["path"]).read_text())["customer"] == FORMULA


def test_a_report_about_nothing(sandbox: Sandbox, data: Path) -> None:
    """15.7 A report about a period without an order fails, and writes no file."""
    write(data / "orders.csv", [row(1)])
    sandbox.start_worker([QUEUE])
    import_data.delay("orders.csv").get(timeout=30)
    with pytest.raises(ValueError, match="period='2019-05': no order in it"):
        generate_report.delay("2019-05").get(timeout=30)
    assert not (data / "out/reports").exists()
    assert generate_report.delay("2026-05").get(timeout=60)["orders"] == 1
    assert sorted(path.name for path in (data / "out/reports").iterdir()) == ["2026-05.html", "2026-05.pdf"]


# --- a crash ---


def test_a_worker_that_is_killed_in_the_middle(drill_sandbox: Sandbox, data: Path) -> None:
    """15.8 When the place is stored in the transaction of the rows, a worker that is killed in the middle of
    an import leaves neither a gap nor a duplicate.
    """
    write(data / "orders.csv", [row(number) for number in range(1, 20_001)])
    worker = drill_sandbox.start_worker([QUEUE])
    result = import_data.delay("orders.csv", batch_size=100)
    wait_for("some batches are in", lambda: len(orders()) >= 1800, seconds=60)
    worker.kill()
    with reading() as session:
        part = session.scalars(select(ImportPart)).one()
    # The place and the rows before it, or neither: each batch has 90 good orders.
    assert len(orders()) == part.accepted
    assert part.accepted % 90 == 0

    drill_sandbox.start_worker([QUEUE])
    done = result.get(timeout=60)
    assert (done["resumed_after_line"] or 0) > part.accepted
    assert (done["imported"], done["rejected"]) == (18_000, 2_000)
    assert sorted(orders()) == sorted(f"A-{number}" for number in range(1, 20_001) if number % 10)
    lines = [reject["line"] for reject in rejects(data)]
    assert (len(lines), len(set(lines))) == (2_000, 2_000)


def test_an_import_again(sandbox: Sandbox, data: Path) -> None:
    """15.9 Orders with a key that comes with the data may be imported again: no order is stored twice."""
    write(data / "orders.csv", [row(number) for number in range(1, 101)])
    sandbox.start_worker([QUEUE])
    first = import_data.delay("orders.csv").get(timeout=30)
    stored = orders()
    assert import_data.delay("orders.csv").get(timeout=30) == first
    assert orders() == stored
    write(data / "orders.csv", [row(number, customer="Bao") for number in range(1, 121)])
    import_data.delay("orders.csv").get(timeout=30)
    assert len(orders()) == 108
    with reading() as session:  # the newer file has replaced what the older one said
        assert session.scalars(select(Order.customer).distinct()).all() == ["Bao"]


def test_memory(data: Path) -> None:
    """15.10 The memory of an import in batches does not grow with the number of rows."""
    for name, count in [("small.csv", 500), ("large.csv", 5_000)]:
        write(data / name, [row(number) for number in range(1, count + 1)])

    def import_in_batches(name: str) -> None:
        import_csv(name, batch_size=250)

    def read_whole(name: str) -> None:
        with (data / name).open(newline="") as file:
            list(csv.reader(file))

    import_in_batches("large.csv")  # the first import of a process also fills its caches
    assert peak(import_in_batches, "large.csv") < 2 * peak(import_in_batches, "small.csv")
    assert peak(read_whole, "large.csv") > 5 * peak(read_whole, "small.csv")


def peak(work: Callable[[str], None], name: str) -> int:
    """Return the most memory, in bytes, that `work` has held at one time for the file `name`."""
    tracemalloc.start()
    work(name)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most
