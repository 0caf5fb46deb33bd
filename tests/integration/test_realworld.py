"""Real work on real workers: mails, images, tables, reports, files; and what a killed worker leaves behind.

The services have unit tests of their own. Here is what only a worker can show: retries, redelivery,
progress as a client sees it, canvases, and errors that arrive with their text.
"""

import csv
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from mailbox import Maildir
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
from celery import Task, chord
from celery.canvas import Signature
from celery.result import AsyncResult
from PIL import Image
from sqlalchemy import delete, func, select

from celery_app import DRILL, app
from lab.faults import kill_child
from lab.mail_server import Fault, fail_next, history, received
from lab.sandbox import Sandbox
from services import markov
from services.database import migrate, reading, writing
from services.mail import PermanentMailError, SentMail
from services.models import Import, ImportPart, Order
from services.order_import import COLUMNS, begin_import
from settings import RESULT_DATABASE, ROOT
from tasks import realworld_tasks
from tasks.realworld_tasks import (
    MAIL_RETRIES,
    cleanup_files,
    contact_sheet_by_mail,
    export_data,
    generate_report,
    import_data,
    import_part,
    mail_contact_sheet,
    mail_failure,
    mail_report,
    merge_parts,
    process_folder,
    process_image,
    sales_report_by_mail,
    send_email,
)
from tests.newcomer import free_port
from tests.waiting import wait_for, wait_until_idle

pytestmark = pytest.mark.usefixtures("data")

QUEUE = "realworld"
LETTER = ("ada@example.com", "Welcome", "Good to have you here.")
SMALLER: list[dict[str, Any]] = [
    {"type": "resize", "width": 60},
    {"type": "filter", "name": "sharpen"},
    {"type": "format", "format": "WEBP"},
]


@pytest.fixture
def worker(sandbox: Sandbox) -> Sandbox:
    """Return a sandbox with a worker for the queue realworld."""
    sandbox.start_worker([QUEUE])
    return sandbox


def failure(result: AsyncResult) -> str:
    """Return the text of the error that a task must end with."""
    error = result.get(timeout=30, propagate=False)
    assert result.state == "FAILURE"
    return str(error)


def progress(result: AsyncResult) -> list[dict[str, Any]]:
    """Wait for a task, and return what it has reported on its way."""
    seen: list[dict[str, Any]] = []
    result.get(timeout=30, on_message=seen.append)
    return [message["result"] for message in seen if message["status"] == "PROGRESS"]


# --- mail ---


def test_a_mail_arrives_and_can_be_read_back(worker: Sandbox, mailbox: Path) -> None:
    sent = send_email.delay(*LETTER, html="<p>Good to have you <b>here</b>.</p>")
    assert sent.get(timeout=30) == {
        "message_id": f"<{sent.id}@localhost>",
        "recipients": ["ada@example.com"],
        "already_sent": False,
    }
    [mail] = received(mailbox)
    assert (mail["To"], mail["Subject"], mail["Message-ID"]) == (*LETTER[:2], f"<{sent.id}@localhost>")
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.parametrize("faults", [("450", "450"), ("421",), ("close",), ("hang",)], ids="-".join)
def test_a_temporary_failure_is_retried_and_the_mail_is_sent_once(
    sandbox: Sandbox, mailbox: Path, monkeypatch: pytest.MonkeyPatch, faults: tuple[Fault, ...]
) -> None:
    monkeypatch.setenv("SMTP_TIMEOUT_SECONDS", "2")  # how long the worker listens to a server that hangs
    sandbox.start_worker([QUEUE])
    fail_next(mailbox, *faults)
    sent = send_email.delay(*LETTER)
    assert sent.get(timeout=60)["already_sent"] is False
    assert history(mailbox) == [*faults, "kept"]
    assert [mail["Message-ID"] for mail in received(mailbox)] == [f"<{sent.id}@localhost>"]


def tasks_that_send_mail() -> list[Task]:
    own = [task for task in vars(realworld_tasks).values() if isinstance(task, Task)]
    return [task for task in own if get_type_hints(task.run).get("return") is SentMail]


def test_all_tasks_that_send_mail_have_one_retry_policy() -> None:
    tasks = tasks_that_send_mail()
    assert {mail_report, mail_contact_sheet, mail_failure, send_email} <= set(tasks)
    for task in tasks:
        assert {name: getattr(task, name) for name in MAIL_RETRIES} == MAIL_RETRIES, task.name
    assert (MAIL_RETRIES["retry_backoff_max"], MAIL_RETRIES["max_retries"]) == (60, 10)


REPORT = {"period": "2026-05", "orders": 9, "revenue": "75.60", "html": "a.html", "pdf": "a.pdf"}
SHEET = {"path": "a.jpg", "width": 1, "height": 1, "format": "JPEG", "bytes": 1}


def test_every_task_that_sends_mail_is_retried(worker: Sandbox, mailbox: Path, data: Path) -> None:
    (data / "a.pdf").touch()
    (data / "a.jpg").touch()
    signatures = [
        send_email.s(*LETTER),
        mail_report.s(REPORT, "ada@example.com"),
        mail_contact_sheet.s(SHEET, "ada@example.com"),
        mail_failure.s("some-id", "ada@example.com"),
    ]
    assert {signature.task for signature in signatures} == {task.name for task in tasks_that_send_mail()}
    for signature in signatures:
        before = len(history(mailbox))
        fail_next(mailbox, "450", "421")
        assert signature.delay().get(timeout=30)["already_sent"] is False
        assert history(mailbox)[before:] == ["450", "421", "kept"]


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        (
            mail_report.s(REPORT | {"pdf": 7}, "ada@example.com"),
            r"mail_report: report\S*=7: input should be a",
        ),
        (mail_report.s({"period": "2026-05"}, "ada@example.com"), r"mail_report: report=.*'2026-05'"),
        (mail_report.s(REPORT | {"pdf": "../a.pdf"}, "ada@example.com"), r"attachments='\.\./a\.pdf'"),
        (
            mail_contact_sheet.s(SHEET | {"path": None}, "a@b"),
            r"mail_contact_sheet: sheet\S*=None: input should",
        ),
        (mail_contact_sheet.s([SHEET], "a@b"), r"mail_contact_sheet: sheet=\[.*input should be a valid dict"),
    ],
)
def test_a_result_of_another_kind_is_refused_and_not_mailed(
    worker: Sandbox, mailbox: Path, signature: Signature, text: str
) -> None:
    assert re.search(text, failure(signature.delay()))
    assert history(mailbox) == []


def test_a_permanent_failure_is_not_retried(worker: Sandbox, mailbox: Path) -> None:
    fail_next(mailbox, "550")
    sent = send_email.delay(*LETTER)
    with pytest.raises(PermanentMailError, match=r"to='ada@example\.com': refused: 550"):
        sent.get(timeout=30)
    wait_until_idle(worker, QUEUE)
    assert history(mailbox) == ["550"]


def test_a_mail_waits_for_a_server_that_is_away(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Controller(Mailbox(tmp_path / "mails"), hostname="127.0.0.1", port=free_port())
    monkeypatch.setenv("SMTP_HOST", server.hostname)
    monkeypatch.setenv("SMTP_PORT", str(server.port))
    sandbox.start_worker([QUEUE])
    sent = send_email.delay(*LETTER)
    wait_for("a retry", lambda: sent.state == "RETRY")
    assert "does not answer" in str(sent.info)
    server.start()
    try:
        sent.get(timeout=60)
    finally:
        server.stop()
    assert len(Maildir(tmp_path / "mails")) == 1


def test_a_worker_killed_after_the_server_accepted_sends_again_and_one_copy_is_kept(
    drill_sandbox: Sandbox, mailbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_TIMEOUT_SECONDS", "2")  # four times that, and the dead worker's claim is void
    worker = drill_sandbox.start_worker([QUEUE])
    fail_next(mailbox, "accept-hang")
    sent = send_email.delay(*LETTER)
    wait_for("the server has the mail", lambda: received(mailbox))
    worker.kill()
    assert sent.state == "STARTED"
    drill_sandbox.start_worker([QUEUE])
    sent.get(timeout=60)
    assert history(mailbox) == ["accept-hang", "kept", "kept already"]
    assert len(received(mailbox)) == 1


def test_a_message_that_is_delivered_twice_sends_one_mail(worker: Sandbox, mailbox: Path) -> None:
    for _ in range(2):
        sent = send_email.apply_async(args=LETTER, task_id="delivered-twice")
    ended = f"{send_email.name}[{sent.id}] succeeded"
    wait_for("both have run", lambda: worker.worker.log.read_text().count(ended) == 2)
    assert history(mailbox) == ["kept"]


def test_a_message_that_comes_again_to_two_workers_after_its_task_has_finished_sends_no_mail(
    sandbox: Sandbox, mailbox: Path
) -> None:
    sent = send_email.delay(*LETTER)
    broker = sandbox.broker.client()
    message = broker.lindex(QUEUE, 0)
    assert message
    workers = [sandbox.start_worker([QUEUE]) for _ in range(2)]
    assert sent.get(timeout=30)["already_sent"] is False
    for _ in range(4):
        broker.lpush(QUEUE, message)  # the same message, byte by byte
    ended = f"{send_email.name}[{sent.id}] succeeded"
    logs = [worker.log for worker in workers]
    wait_for("all have run", lambda: sum(log.read_text().count(ended) for log in logs) == 5, seconds=30)
    assert history(mailbox) == ["kept"]


def test_a_subject_that_hides_a_header_arrives_as_it_was_typed(worker: Sandbox, mailbox: Path) -> None:
    subject = "=?utf-8?q?a=0AX-Evil:_1?= b"
    send_email.delay("ada@example.com", subject, "Hello").get(timeout=30)
    [mail] = received(mailbox)
    assert "X-Evil" not in mail
    assert mail["Subject"] == subject


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"subject": "Hi\nBcc: all@example.com"}, r"subject='Hi\nBcc: all@example.com': line breaks"),
        ({"to_email": "ada@example.com\nBcc: all@example.com"}, r"to='ada@example.com\nBcc"),
        ({"to_email": [f"a{n}@example.com" for n in range(3000)]}, "to has 3000 addresses; 50 are allowed"),
        ({"to_email": 7}, "send_email: to_email=7: input should be a valid"),
        ({"attachments": ["a\nb.txt"]}, r"attachments='a\nb.txt': line breaks"),
        ({"to_email": "müller@example.com"}, "the part before the @ is not ASCII"),
    ],
    ids=[
        "line break in subject",
        "line break in address",
        "thousands",
        "no address",
        "line break in name of attachment",
        "international address",
    ],
)
def test_a_mail_that_cannot_be_sent_names_the_field(
    worker: Sandbox, mailbox: Path, changes: dict[str, Any], text: str
) -> None:
    arguments = dict(zip(("to_email", "subject", "body"), LETTER, strict=True)) | changes
    assert text in failure(send_email.delay(**arguments))
    assert history(mailbox) == []


# --- images ---


@pytest.fixture
def photos(data: Path) -> list[str]:
    """Put four images into the data folder, and return their paths."""
    (data / "images").mkdir()
    paths = [f"images/photo{number}.jpg" for number in range(4)]
    for number, path in enumerate(paths):
        Image.new("RGB", (120, 80), (60 * number, 90, 30)).save(data / path)
    return paths


def test_a_client_sees_the_progress_of_each_operation(worker: Sandbox, photos: list[str]) -> None:
    assert progress(process_image.delay(photos[0], SMALLER)) == [
        {"current": 1, "total": 3, "percent": 33, "status": "resize"},
        {"current": 2, "total": 3, "percent": 67, "status": "filter"},
        {"current": 3, "total": 3, "percent": 100, "status": "format"},
    ]


@pytest.mark.parametrize("path", ["../photo.jpg", "/etc/passwd", "link.jpg"])
def test_a_path_outside_the_data_folder_is_refused_and_nothing_is_written(
    worker: Sandbox, data: Path, path: str
) -> None:
    Image.new("RGB", (120, 80)).save(data.parent / "photo.jpg")
    (data / "link.jpg").symlink_to(data.parent / "photo.jpg")
    assert f"image_path='{path}'" in failure(process_image.delay(path, SMALLER))
    assert [file.name for file in data.iterdir()] == ["link.jpg"]


def test_operations_are_named_as_people_type_them(worker: Sandbox, photos: list[str]) -> None:
    image = process_image.delay(photos[0], ["resize", "crop", "filter"]).get(timeout=30)
    assert (image["width"], image["height"]) == (40, 40)
    error = failure(process_image.delay(photos[0], ["resize", "watermark"]))
    assert "operations[1]='watermark': text is missing" in error


def test_an_operation_that_does_not_exist_is_refused_by_its_place(worker: Sandbox, photos: list[str]) -> None:
    error = failure(process_image.delay(photos[0], [{"type": "rotat", "degrees": 90}]))
    assert "operations[0]" in error
    assert "'rotat'" in error


def test_a_folder_is_processed_as_a_group(worker: Sandbox, data: Path, photos: list[str]) -> None:
    images = process_folder("images", SMALLER).delay().get(timeout=30)
    assert [Path(image["path"]).name.partition("-")[0] for image in images] == [
        Path(photo).stem for photo in photos
    ]
    for image in images:
        with Image.open(data / image["path"]) as written:
            assert (written.format, written.size) == ("WEBP", (60, 40))


def test_a_chord_mails_one_contact_sheet(
    worker: Sandbox, mailbox: Path, data: Path, photos: list[str]
) -> None:
    contact_sheet_by_mail("images", SMALLER, "ada@example.com").delay().get(timeout=30)
    [mail] = received(mailbox)
    [sheet] = mail.iter_attachments()
    assert (mail["To"], sheet.get_content_type()) == ("ada@example.com", "image/jpeg")
    assert sheet.get_content() == (data / "out/contact-sheets/latest.jpg").read_bytes()


def test_a_broken_image_stops_the_contact_sheet_and_not_the_other_images(
    worker: Sandbox, mailbox: Path, data: Path, photos: list[str]
) -> None:
    (data / photos[1]).write_bytes((data / photos[1]).read_bytes()[:300])
    result = contact_sheet_by_mail("images", SMALLER, "ada@example.com").delay()
    assert f"image_path='{photos[1]}'" in failure(result)
    wait_until_idle(worker, QUEUE)
    written = {path.name.partition("-")[0] for path in (data / "out").rglob("*") if path.is_file()}
    assert written == {"photo0", "photo2", "photo3"}
    assert history(mailbox) == []


# --- tables ---


def write_orders(path: Path, count: int) -> None:
    """Write a table of `count` orders. Each tenth is bad."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for number in range(1, count + 1):
            quantity = 0 if number % 10 == 0 else 1
            writer.writerow(
                [
                    f"A-{number}",
                    "Ada",
                    "ada@example.com",
                    "GB",
                    "Mug",
                    quantity,
                    "8.40",
                    "2026-05-03T14:05:00Z",
                ]
            )


def orders_stored() -> int:
    with reading() as session:
        return session.scalar(select(func.count()).select_from(Order)) or 0


def wait_until_stored(count: int) -> None:
    wait_for(f"{count} orders are in", lambda: orders_stored() >= count, seconds=60)


def rejects_of(data: Path) -> list[dict[str, str]]:
    with (data / "out/rejects/orders.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def kill_in_the_middle(
    sandbox: Sandbox, data: Path, rows: int, batch_size: int, seconds: float, include: Sequence[str] = ()
) -> None:
    """Kill the worker in an import of `rows` rows, start another, and check that nothing is lost or doubled.

    `seconds`: how long the redelivery and the rest of the import may take. `include`: what the workers load.
    """
    write_orders(data / "orders.csv", rows)
    worker = sandbox.start_worker([QUEUE], include=include)
    result = import_data.delay("orders.csv", batch_size=batch_size)
    wait_until_stored(rows // 10)
    worker.kill()
    assert result.info["total"] == rows  # its last report: it has not ended
    assert rows // 10 <= orders_stored() < rows * 9 // 10
    sandbox.start_worker([QUEUE], include=include)

    done = result.get(timeout=seconds)
    assert (done["imported"], done["rejected"]) == (rows * 9 // 10, rows // 10)
    assert (done["resumed_after_line"] or 0) > rows // 10  # it went on, and did not begin anew
    assert orders_stored() == rows * 9 // 10
    rejects = rejects_of(data)
    assert [int(reject["line"]) for reject in rejects] == list(range(11, rows + 2, 10))
    assert {(reject["column"], reject["value"]) for reject in rejects} == {("quantity", "0")}


def test_an_import_whose_worker_is_killed_is_complete_after_the_redelivery(
    drill_sandbox: Sandbox, data: Path
) -> None:
    kill_in_the_middle(drill_sandbox, data, rows=20_000, batch_size=100, seconds=60)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_import_of_a_million_rows_whose_worker_is_killed_is_complete(
    sandbox: Sandbox, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The drill profile's three seconds are shorter than this import: it would be delivered again and again.
    redeliver_within_seconds(monkeypatch, visibility_timeout=60)
    include = ["tests.helper_tasks"]
    kill_in_the_middle(sandbox, data, rows=1_000_000, batch_size=5_000, seconds=600, include=include)


def test_an_import_in_three_parts_gives_the_same_as_in_one(worker: Sandbox, data: Path) -> None:
    write_orders(data / "orders.csv", 1000)
    outcomes = []
    for parts in (1, 3):
        result = import_data.delay("orders.csv", parts=parts, batch_size=100).get(timeout=30)
        with writing() as session:
            assert session.scalar(select(func.count()).select_from(ImportPart)) == parts
            orders = session.scalars(select(Order.order_id).order_by(Order.order_id)).all()
            for table in (Import, Order):
                session.execute(delete(table))
        outcomes.append((result, orders, rejects_of(data)))
        shutil.rmtree(data / "out")
    assert outcomes[0] == outcomes[1]
    result, orders, rejects = outcomes[0]
    assert (result["imported"], len(orders), len(rejects)) == (900, 900, 100)


def assert_imported(data: Path, done: Any, rows: int) -> None:
    """Check that the import of `write_orders(…, rows)` has ended with all that it should, once."""
    assert (done["imported"], done["replaced"], done["rejected"]) == (rows * 9 // 10, 0, rows // 10)
    assert orders_stored() == rows * 9 // 10
    assert [int(reject["line"]) for reject in rejects_of(data)] == list(range(11, rows + 2, 10))


def redeliver_within_seconds(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Let workers that start later, and load tests.helper_tasks, give back quickly what a dead one held."""
    names = ("unacked_restore_interval", "unacked_restore_throttle", "unacked_mutex_expire")
    changed = app.conf.broker_transport_options | {name: DRILL[name] for name in names} | options
    monkeypatch.setenv("TEST_CONF", json.dumps({"broker_transport_options": changed}))


@pytest.mark.timeout(180)
def test_an_import_in_parts_whose_worker_is_killed_four_times_ends_with_one_right_result(
    drill_sandbox: Sandbox, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redeliver_within_seconds(monkeypatch, visibility_timeout=DRILL["visibility_timeout"])
    write_orders(data / "orders.csv", 20_000)
    result = import_data.delay("orders.csv", parts=6, batch_size=100)
    for count in (1, 3_000, 7_000, 11_000):  # the first kill may hit the task that becomes the chord
        worker = drill_sandbox.start_worker([QUEUE], include=["tests.helper_tasks"])
        wait_until_stored(count)
        worker.kill()
    assert not result.ready()
    drill_sandbox.start_worker([QUEUE], include=["tests.helper_tasks"])
    assert_imported(data, result.get(timeout=60), 20_000)
    wait_until_idle(drill_sandbox, QUEUE)  # copies that come late change nothing
    assert_imported(data, result.get(timeout=10), 20_000)
    assert result.state == "SUCCESS"


def test_parts_whose_pool_children_are_killed_end_with_one_right_result(worker: Sandbox, data: Path) -> None:
    write_orders(data / "orders.csv", 20_000)
    result = import_data.delay("orders.csv", parts=2, batch_size=100)
    for count in (1_000, 4_000):
        wait_until_stored(count)
        kill_child(worker.worker)
    assert_imported(data, result.get(timeout=60), 20_000)


def test_an_import_goes_on_when_the_broker_restarts(worker: Sandbox, data: Path) -> None:
    write_orders(data / "orders.csv", 20_000)
    result = import_data.delay("orders.csv", batch_size=100)
    wait_until_stored(1_000)
    worker.broker.restart()
    assert_imported(data, result.get(timeout=60), 20_000)


def test_an_import_in_parts_that_a_broker_without_a_disk_forgets_can_be_sent_again(
    worker: Sandbox, data: Path
) -> None:
    write_orders(data / "orders.csv", 20_000)
    forgotten = import_data.delay("orders.csv", parts=6, batch_size=100)
    wait_until_stored(1_000)
    worker.broker.restart()  # the parts that nobody has begun are gone, and the counter of the chord
    again = import_data.delay("orders.csv", parts=6, batch_size=1_000)
    assert_imported(data, again.get(timeout=60), 20_000)
    assert forgotten.state != "SUCCESS"


def deliver_again(sandbox: Sandbox, messages: list[Any]) -> None:
    """Put messages on the queue once more, as a broker does whose acknowledgements were lost."""
    for message in messages:
        sandbox.broker.client().rpush(QUEUE, message)


def send_whole(parts: int) -> AsyncResult:
    return import_data.delay("orders.csv", parts=parts, batch_size=50)


def send_parts(parts: int) -> AsyncResult:
    """Send what `import_data` replaces itself by, while no worker takes the messages."""
    migrate()
    plan = begin_import("orders.csv", parts)
    header = [import_part.s(plan.import_id, first, end, batch_size=50) for first, end in plan.ranges]
    return chord(header)(merge_parts.si(plan.import_id))


@pytest.mark.parametrize(
    ("send", "parts", "count"), [(send_whole, 1, 1), (send_whole, 3, 1), (send_parts, 3, 3)]
)
def test_every_message_of_an_import_may_be_delivered_again_at_any_time(
    sandbox: Sandbox, data: Path, send: Callable[[int], AsyncResult], parts: int, count: int
) -> None:
    write_orders(data / "orders.csv", 1_000)
    broker = sandbox.broker.client()
    result = send(parts)
    messages = broker.lrange(QUEUE, 0, -1)
    assert len(messages) == count
    deliver_again(sandbox, messages)  # twice at the same moment, each to a process of its own
    sandbox.start_worker([QUEUE], options=("--concurrency", "4"))
    done = result.get(timeout=30)
    assert_imported(data, done, 1_000)
    wait_until_idle(sandbox, QUEUE)
    write_orders(data / "orders.csv", 10)  # a newer table: nothing of it may come in
    deliver_again(sandbox, messages)  # and once more after the end
    if parts > 1:
        with reading() as session:
            import_id = session.scalars(select(Import.id)).one()
        merge_parts.apply_async((import_id,), task_id=result.id)  # and the body
    wait_for("it is taken", lambda: broker.llen(QUEUE) == 0)
    wait_until_idle(sandbox, QUEUE)
    assert result.get(timeout=10) == done
    assert_imported(data, done, 1_000)
    states = {
        AsyncResult(key.decode().removeprefix("celery-task-meta-")).state for key in task_results(sandbox)
    }
    assert states == {"SUCCESS"}


def task_results(sandbox: Sandbox) -> list[bytes]:
    return list(sandbox.broker.client(RESULT_DATABASE).scan_iter("celery-task-meta-*"))


@pytest.mark.parametrize("parts", [0, -1])
def test_parts_below_one_are_refused(worker: Sandbox, data: Path, parts: int) -> None:
    write_orders(data / "orders.csv", 10)
    error = failure(import_data.delay("orders.csv", parts=parts))
    assert error == f"import_data: parts={parts}: input should be greater than 0"
    assert orders_stored() == 0


@pytest.mark.parametrize("parts", [1, 3])
def test_a_table_with_wrong_columns_is_refused_as_a_whole(worker: Sandbox, data: Path, parts: int) -> None:
    write_orders(data / "orders.csv", 10)
    text = (data / "orders.csv").read_text()
    (data / "orders.csv").write_text(text.replace("email", "mail", 1))
    error = failure(import_data.delay("orders.csv", parts=parts))
    assert "orders.csv: wrong columns (missing: email; unknown: mail)" in error
    assert orders_stored() == 0
    assert not (data / "out").exists()


def test_an_import_and_an_export_report_their_progress_in_rows(worker: Sandbox, data: Path) -> None:
    write_orders(data / "orders.csv", 3000)
    imported = progress(import_data.delay("orders.csv", batch_size=1000))
    assert [step["status"] for step in imported] == [
        "1,000 of 3,000 rows",
        "2,000 of 3,000 rows",
        "3,000 of 3,000 rows",
    ]
    exported = progress(export_data.delay("jsonl"))
    assert [(step["current"], step["total"]) for step in exported] == [(2000, 2700), (2700, 2700)]
    assert len((data / "out/exports/orders.jsonl").read_text().splitlines()) == 2700


def test_an_unknown_export_format_is_refused(worker: Sandbox, data: Path) -> None:
    assert failure(export_data.delay("pdf")) == "format='pdf': use one of csv, jsonl, xlsx"
    assert not (data / "out").exists()


# --- reports, pipelines, files ---


def test_a_report_on_a_period_without_orders_fails_and_says_where_there_are_some(
    worker: Sandbox, data: Path
) -> None:
    assert (
        failure(generate_report.delay("2026-05")) == "period='2026-05': no order in it; import orders first"
    )
    write_orders(data / "orders.csv", 9)
    import_data.delay("orders.csv").get(timeout=30)
    assert "the orders are from 2026-05-03 to 2026-05-03" in failure(generate_report.delay("2026-06"))
    assert "not a period" in failure(generate_report.delay("May"))
    assert not (data / "out/reports").exists()


def test_a_pipeline_imports_reports_and_mails(worker: Sandbox, mailbox: Path, data: Path) -> None:
    write_orders(data / "orders.csv", 10)
    sales_report_by_mail("orders.csv", "2026-05", "boss@example.com").delay().get(timeout=30)
    [mail] = received(mailbox)
    assert (mail["To"], mail["Subject"]) == ("boss@example.com", "Sales 2026-05")
    body = mail.get_body()
    assert body is not None
    assert body.get_content().startswith("9 orders, revenue 75.60.")
    [report] = mail.iter_attachments()
    assert report.get_content() == (data / "out/reports/2026-05.pdf").read_bytes()


def test_a_pipeline_that_fails_mails_which_task_failed_and_no_report(
    worker: Sandbox, mailbox: Path, data: Path
) -> None:
    write_orders(data / "orders.csv", 10)
    last = sales_report_by_mail("orders.csv", "2026-13", "boss@example.com").delay()
    assert isinstance(last.parent, AsyncResult)
    assert "period='2026-13': not a period" in failure(last.parent)
    wait_for("the mail", lambda: received(mailbox))
    wait_until_idle(worker, QUEUE)
    [mail] = received(mailbox)
    assert (mail["To"], mail["Subject"]) == ("boss@example.com", "A pipeline failed")
    assert last.parent.id in mail.get_content()
    assert orders_stored() == 9  # what the steps before have done stays


def test_a_cleanup_only_looks_unless_it_is_told_to_remove(worker: Sandbox, data: Path) -> None:
    old, new = data / "out/reports/old.html", data / "out/new.html"
    old.parent.mkdir(parents=True)
    for file in (old, new):
        file.write_text("report")
    os.utime(old, (0, 0))
    looked = cleanup_files.delay(".", older_than_days=30).get(timeout=30)
    assert (looked["removed"], looked["bytes"], looked["kept"]) == (["reports/old.html"], 6, 1)
    assert old.exists()
    removed = cleanup_files.delay(".", older_than_days=30, dry_run=False).get(timeout=30)
    assert removed == looked | {"dry_run": False}
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize("folder", ["/", "..", "reports/../.."])
def test_a_cleanup_outside_the_output_folder_is_refused(worker: Sandbox, data: Path, folder: str) -> None:
    (data / "out").mkdir()
    (data / "orders.csv").touch()
    os.utime(data / "orders.csv", (0, 0))
    error = failure(cleanup_files.delay(folder, older_than_days=30, dry_run=False))
    assert f"folder={folder!r}" in error
    assert (data / "orders.csv").exists()


# --- no pretence ---


def test_no_sleep_stands_for_work() -> None:
    sources = [ROOT / "tasks/realworld_tasks.py", *(ROOT / "services").glob("*.py")]
    assert [path.name for path in sources if "sleep" in path.read_text()] == ["simulation.py"]
    users = [path.name for path in sources if "services.simulation" in path.read_text()]
    # The second model of `markov` has a simulated pace, and says so: otherwise nobody could watch it.
    assert users == ["markov.py"]
    assert [name for name, seconds in markov.MODELS.items() if seconds] == ["markov-slow"]
