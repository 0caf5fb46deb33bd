"""What notebook 02 claims about messages, on real processes."""

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from kombu.exceptions import ContentDisallowed
from kombu.serialization import dumps, loads, prepare_accept_content

from lab.sandbox import Sandbox
from lab.timeline import Timeline
from lab.wrong_tasks import check_password, month_name
from lab.xray import xray
from settings import RESULT_DATABASE
from tasks.basic_tasks import add, count_words
from tests.helper_tasks import echo
from tests.waiting import wait_for
from tests.workers import start


class Trap:
    """An object whose pickle makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def body_of_the_message(sandbox: Sandbox) -> str:
    """Return the body of the only message in the queue basic, as it lies in Redis."""
    [raw] = sandbox.broker.client().lrange("basic", 0, -1)
    return json.loads(raw)["body"]


def test_the_arguments_can_be_read_in_the_queue(sandbox: Sandbox) -> None:
    """02.1 The arguments lie in the body as JSON in base64: whoever can read the queue can read them."""
    add.delay(4, b=5)
    positional, named, _ = json.loads(base64.b64decode(body_of_the_message(sandbox)))
    assert (positional, named) == ([4], {"b": 5})


def test_the_body_is_a_third_longer_than_its_json(sandbox: Sandbox) -> None:
    """02.2 On Redis the body of a message takes a third more room than its JSON."""
    count_words.delay("x" * 300_000)
    body = body_of_the_message(sandbox)
    assert len(body) / len(base64.b64decode(body)) == pytest.approx(4 / 3, rel=0.001)


def test_a_small_message_takes_about_a_thousand_bytes(sandbox: Sandbox) -> None:
    """02.3 A message takes about 1,000 bytes, however small its arguments are."""
    add.delay(4, 5)
    default_app = Celery("default", broker=sandbox.broker.url, set_as_current=False)
    default_app.send_task("tasks.basic_tasks.periodic_task")  # no arguments, and Celery's defaults
    broker = sandbox.broker.client()
    for queue in ("basic", "celery"):
        assert len(broker.lrange(queue, 0, 0)[0]) == pytest.approx(1000, rel=0.15)


def test_json_changes_tuples_and_keys(sandbox: Sandbox) -> None:
    """02.4 JSON turns tuples into lists, and the keys of a dictionary into text."""
    start(sandbox)
    sent = ((1, 2), {1: "January", None: [(3,)]})
    assert echo.delay(*sent).get(timeout=10) == ["[1, 2]", "{'1': 'January', 'null': [[3]]}"]
    with pytest.raises(KeyError):
        month_name.delay({1: "January"}, 1).get(timeout=10)


def test_some_types_arrive_as_what_they_were(sandbox: Sandbox) -> None:
    """02.5 A datetime, a Decimal, a UUID and bytes arrive with their type and their value; of a time zone,
    only its offset from UTC arrives.
    """
    start(sandbox)
    naive = datetime(2030, 7, 1, 12, 30, 15, 123456)
    values = (naive, naive.replace(tzinfo=UTC), Decimal("9.90"), UUID(int=1), b"abc", b"\xff\x00")
    assert echo.delay(*values).get(timeout=10) == [repr(value) for value in values]

    summer = naive.replace(tzinfo=ZoneInfo("Europe/Paris"))
    [arrived] = echo.delay(summer).get(timeout=10)
    assert arrived == repr(naive.replace(tzinfo=timezone(timedelta(hours=2))))


def test_apply_does_not_show_what_json_changes(sandbox: Sandbox) -> None:
    """02.6 `apply()` runs a task without a message, so it does not show what JSON changes."""
    assert month_name.apply(args=({1: "January"}, 1)).get() == "January"
    assert sandbox.broker.client().llen("basic") == 0
    month_name.delay({1: "January"}, 1)
    assert [message.args for message in xray("basic").messages] == [({"1": "January"}, 1)]


def test_a_pickle_is_thrown_away_unopened(sandbox: Sandbox, tmp_path: Path) -> None:
    """02.7 A worker that accepts JSON only throws a pickle message away unopened, and its result stays
    PENDING.
    """
    worker = sandbox.start_worker(["basic"])
    result = add.apply_async(args=[Trap(tmp_path / "trap"), 5], serializer="pickle")
    wait_for("it is refused", lambda: "ContentDisallowed" in worker.log.read_text())
    assert add.delay(1, 2).get(timeout=10) == 3  # the worker goes on, and nothing else is left to do
    assert (result.state, (tmp_path / "trap").exists()) == ("PENDING", False)
    wait_for(
        "nothing is left",
        lambda: not xray("basic").waiting["basic"] and not xray("basic").unacknowledged_total,
    )


def test_a_worker_that_accepts_pickle_runs_what_is_in_it(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """02.8 A worker that accepts pickle runs what is in a message while it opens it, before any task is
    called.
    """
    monkeypatch.setenv("C_FORCE_ROOT", "1")  # for root, Celery refuses to start such a worker
    sandbox.start_worker(["basic"], options=['accept_content=(list)["json", "pickle"]'])
    result = add.apply_async(args=[Trap(tmp_path / "trap"), 5], serializer="pickle")
    with pytest.raises(ValueError, match="a=None: input should be a valid integer or a valid number"):
        result.get(timeout=10)
    assert (tmp_path / "trap").exists()

    # A message that has expired is opened too, and its task is not called.
    never = add.apply_async(args=[Trap(tmp_path / "second"), 5], serializer="pickle", expires=-1)
    wait_for("it is revoked", lambda: never.state == "REVOKED")
    assert (tmp_path / "second").exists()


def test_celery_accepts_json_only_by_default() -> None:
    """02.9 By default Celery accepts JSON only: a program must name pickle in `accept_content` to accept
    it.
    """
    app = Celery("default", set_as_current=False)
    content_type, encoding, data = dumps([4, 5], "pickle")
    with pytest.raises(ContentDisallowed):
        loads(data, content_type, encoding, accept=prepare_accept_content(app.conf.accept_content))
    app.conf.accept_content = ["json", "pickle"]
    accepted = prepare_accept_content(app.conf.accept_content)
    assert loads(data, content_type, encoding, accept=accepted) == [4, 5]


def test_argsrepr_decides_what_events_show(sandbox: Sandbox) -> None:
    """02.10 `argsrepr` decides which arguments are shown in events, and Flower shows those."""
    start(sandbox)
    with Timeline() as plain:
        plain.wait_for(check_password.delay("swordfish"))
    with Timeline() as timeline:
        timeline.wait_for(check_password.apply_async(args=["swordfish"], argsrepr="('***',)"))
    hidden = timeline.events
    shown = [event["args"] for event in (*plain.events, *hidden) if event["type"] == "task-received"]
    assert shown == ["('swordfish',)", "('***',)"]
    assert "swordfish" not in str(hidden)


def test_argsrepr_hides_nothing_else(sandbox: Sandbox) -> None:
    """02.11 `argsrepr` hides an argument neither in the queue nor, with `result_extended`, in the result
    backend.
    """
    result = check_password.apply_async(args=["swordfish"], argsrepr="('***',)")
    assert "swordfish" in base64.b64decode(body_of_the_message(sandbox)).decode()
    start(sandbox)
    result.get(timeout=10)
    stored = sandbox.broker.client(RESULT_DATABASE).get(f"celery-task-meta-{result.id}")
    assert json.loads(stored or "")["args"] == ["swordfish"]
