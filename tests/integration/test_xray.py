"""The X-ray shows what Redis really holds, reads only what it shows, and changes nothing."""

import base64
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from celery_app import app
from lab.sandbox import Sandbox
from lab.xray import Unacknowledged, XRay, xray
from settings import ROOT
from tasks.advanced_tasks import fetch_data, prioritized_task, process_item
from tasks.basic_tasks import add, greet, task_with_progress
from tests.helper_tasks import mark_and_wait
from tests.waiting import lines, wait_for


def raw_message(sandbox: Sandbox, key: str) -> bytes:
    raw = sandbox.broker.client().lindex(key, 0)
    assert isinstance(raw, bytes)
    return raw


def test_a_waiting_message_is_opened(sandbox: Sandbox) -> None:
    result = greet.apply_async(kwargs={"name": "Ada"}, priority=3)
    [message] = xray("basic").messages
    assert (message.task, message.id, message.priority) == ("tasks.basic_tasks.greet", result.id, 3)
    assert (message.args, message.kwargs, message.arguments) == ((), {"name": "Ada"}, "name='Ada'")
    assert message.properties["delivery_info"]["routing_key"] == "basic"
    assert message.content_type == "application/json"
    assert message.size == len(raw_message(sandbox, "basic\x06\x163"))
    for part in ("headers", "properties", "body", "correlation_id", "'Ada'", result.id):
        assert part in xray("basic").text()


def test_the_rest_of_a_chain_is_in_the_body_of_its_first_message(sandbox: Sandbox) -> None:
    (fetch_data.s("north") | process_item.s()).delay()
    [message] = xray("advanced").messages
    assert [step["task"] for step in message.embed["chain"]] == ["tasks.advanced_tasks.process_item"]


def test_messages_come_in_the_order_in_which_they_are_served(sandbox: Sandbox) -> None:
    for number, priority in enumerate((9, 0, 3, 0)):
        prioritized_task.apply_async(args=[f"{number}"], priority=priority)
    view = xray("advanced")
    assert [message.args for message in view.messages] == [("1",), ("3",), ("2",), ("0",)]
    assert view.waiting == {"advanced": {0: 2, 3: 1, 9: 1}}
    assert "p0: 2, p3: 1, p9: 1" in view.text()


def test_it_reads_only_what_it_shows(sandbox: Sandbox) -> None:
    client = sandbox.broker.client()
    add.delay(1, 2)
    message = raw_message(sandbox, "basic")
    client.lpush("basic", *[message] * 2000)
    before = client.info("stats")["total_net_output_bytes"]
    view = xray("basic", limit=3)
    sent = client.info("stats")["total_net_output_bytes"] - before
    assert len(view.messages) == 3
    assert "Waiting, the next first: 3 of 2001" in view.text()
    assert sent < 20 * len(message) < 2000 * len(message)


def test_it_changes_nothing(sandbox: Sandbox) -> None:
    add.delay(1, 2)
    prioritized_task.apply_async(args=["p"], priority=5)
    client = sandbox.broker.client()

    def everything() -> dict[Any, Any]:
        return {key: client.dump(key) for key in client.scan_iter()}

    before = everything()
    xray().text()
    assert everything() == before


def test_an_unacknowledged_message_is_shown_with_its_age(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.start_worker(["basic"], include=["tests.helper_tasks"])
    result = mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
    wait_for("the task runs", lambda: lines(tmp_path / "runs"))
    view = xray("basic")
    assert view.messages == ()
    [held] = view.unacknowledged
    assert (held.message.id, held.message.queue, view.unacknowledged_total) == (result.id, "basic", 1)
    assert wait_for("it gets older", lambda: older_than(held))
    assert xray("advanced").unacknowledged == ()
    (tmp_path / "release").touch()
    wait_for("it is acknowledged", lambda: xray("basic").unacknowledged == ())


def test_what_workers_have_taken_is_active_reserved_or_scheduled(sandbox: Sandbox, tmp_path: Path) -> None:
    # A concurrency of one, and a prefetch of two: one task waits in the worker behind another.
    options = ["--prefetch-multiplier", "2"]
    worker = sandbox.start_worker(["basic"], include=["tests.helper_tasks"], concurrency=1, options=options)
    later = mark_and_wait.apply_async(args=(str(tmp_path / "runs"), str(tmp_path / "release")), countdown=600)
    wait_for("the worker has it", lambda: xray("basic").delayed)
    running, waiting = (
        mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release")) for _ in range(2)
    )
    wait_for("the first one runs", lambda: lines(tmp_path / "runs"))
    expected = {later.id: "scheduled", running.id: "active", waiting.id: "reserved"}
    wait_for(
        "all three",
        lambda: {held.message.id: held.state for held in xray("basic").unacknowledged} == expected,
    )
    assert {held.worker.partition("@")[0] for held in xray("basic").unacknowledged} == {worker.name}
    assert {"scheduled", "active", "reserved"} <= set(xray("basic").text().split())

    worker.kill()
    assert {held.state for held in xray("basic").unacknowledged} == {"no answer"}


def older_than(held: Unacknowledged) -> bool:
    return xray("basic").unacknowledged[0].age > held.age


def test_a_delayed_task_is_in_the_memory_of_its_worker(sandbox: Sandbox) -> None:
    worker = sandbox.start_worker(["basic"])
    result = add.apply_async((1, 2), countdown=600)
    [delayed] = wait_for("the worker has it", lambda: xray("basic").delayed)
    assert delayed.id == result.id
    assert delayed.worker.startswith(f"{worker.name}@")
    view = xray("basic")
    assert view.unacknowledged[0].message.headers["eta"]
    assert "not before" in view.text()


def test_results_are_shown_with_the_time_that_they_are_kept(sandbox: Sandbox) -> None:
    sandbox.start_worker(["basic"])
    good, bad = add.delay(4, 5), task_with_progress.delay(-1)
    good.get(timeout=10)
    bad.get(timeout=10, propagate=False)
    results = {result.id: result for result in xray().results}
    assert (results[good.id].state, results[good.id].value) == ("SUCCESS", 9)
    assert results[good.id].task == "tasks.basic_tasks.add"
    assert 0 < (results[good.id].expires or 0) <= 3600
    assert results[bad.id].state == "FAILURE"
    assert xray(limit=1).results_total == 2
    assert "Keys of the result database: 1 of 2" in xray(limit=1).text()


def test_bindings_are_shown(sandbox: Sandbox) -> None:
    sandbox.start_worker(["basic", "advanced"])
    found = [(binding.exchange, binding.routing_key, binding.queue) for binding in xray().bindings]
    assert {("basic", "basic", "basic"), ("advanced", "advanced", "advanced")} <= set(found)
    assert [binding.queue for binding in xray("basic").bindings] == ["basic"]


# --- messages that are not what they should be ---


def test_a_pickle_is_not_opened(sandbox: Sandbox, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (tmp_path / "sprung",))

    add.delay(1, 2)
    client = sandbox.broker.client()
    message = json.loads(raw_message(sandbox, "basic"))
    client.delete("basic")
    message["body"] = base64.b64encode(pickle.dumps(Trap())).decode()
    message["content-type"] = "application/x-python-serialize"
    client.lpush("basic", json.dumps(message))
    [opened] = xray("basic").messages
    assert opened.problem.startswith("body not opened: application/x-python-serialize")
    assert opened.task == "tasks.basic_tasks.add"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("raw", ["rubbish", "[]", "3", '{"headers": 1}', b"\xff\xfe", "null"])
def test_what_is_no_message_is_told(sandbox: Sandbox, raw: str | bytes) -> None:
    sandbox.broker.client().lpush("basic", raw)
    [message] = xray("basic").messages
    assert message.problem.startswith("not a message of Celery")
    assert "not a message of Celery" in xray("basic").text()


@pytest.mark.parametrize("body", ["not base64!", base64.b64encode(b"[1]").decode(), ""])
def test_a_broken_body_is_told(sandbox: Sandbox, body: str) -> None:
    add.delay(1, 2)
    client = sandbox.broker.client()
    message = json.loads(raw_message(sandbox, "basic"))
    client.delete("basic")
    client.lpush("basic", json.dumps(message | {"body": body}))
    assert xray("basic").messages[0].problem.startswith("body not opened")


def test_a_compressed_body_is_told(sandbox: Sandbox) -> None:
    add.apply_async((1, 2), compression="zlib")
    assert "compressed as" in xray("basic").messages[0].problem


def test_an_unknown_queue_or_limit_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="queue='basics': no such queue; use one of basic, "):
        xray("basics")
    with pytest.raises(ValueError, match="limit=0: must be 1 or more"):
        xray("basic", limit=0)


def test_a_broker_that_is_away_is_named(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.conf, "broker_url", "redis+socket:///nowhere.sock?virtual_host=0")
    monkeypatch.setitem(app.conf, "broker_read_url", "redis+socket:///nowhere.sock?virtual_host=0")
    monkeypatch.setitem(app.conf, "broker_write_url", "redis+socket:///nowhere.sock?virtual_host=0")
    with pytest.raises(OperationalError, match="does not answer"):
        xray()


# --- how it is shown ---


def test_notebooks_get_tables_and_text(sandbox: Sandbox) -> None:
    add.delay(1, 2)
    shown: Any
    for shown in (xray(), xray("basic").messages[0]):
        bundle = shown._repr_mimebundle_([], [])
        assert "add" in bundle["text/html"]
        assert bundle["text/plain"].strip()


def test_json_holds_everything(sandbox: Sandbox) -> None:
    add.delay(1, 2)
    told = json.loads(xray("basic").as_json())
    assert set(told) == set(XRay.__dataclass_fields__)
    assert told["messages"][0]["args"] == [1, 2]


def learn(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lab.cli", "xray", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"COLUMNS": "150"}, capture_output=True, text=True, timeout=60
    )


def test_learn_xray_prints_tables_or_json(sandbox: Sandbox) -> None:
    result = add.delay(1, 2)
    tables = learn("basic")
    assert tables.returncode == 0, tables.stderr
    assert result.id in tables.stdout
    assert json.loads(learn("basic", "--json", "--limit", "1").stdout)["messages"][0]["args"] == [1, 2]
    assert result.id in learn("--watch").stdout  # once, because the output is not a terminal


def test_learn_xray_refuses_an_unknown_queue_in_one_line(sandbox: Sandbox) -> None:
    program = learn("basics")
    assert (program.returncode, program.stdout) == (1, "")
    assert program.stderr.startswith("Error: queue='basics': no such queue")
