"""The X-ray shows what Redis really holds, reads only what it shows, and changes nothing."""

import base64
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.app.control import Inspect
from kombu.exceptions import OperationalError

from celery_app import app
from lab import console
from lab.sandbox import Sandbox
from lab.xray import Unacknowledged, XRay, xray
from monitor import get_queue_length
from settings import BROKER_DATABASE, RESULT_DATABASE, ROOT
from tasks.advanced_tasks import fetch_data, prioritized_task, process_item
from tasks.basic_tasks import add, greet, multiply, task_with_progress
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
    before, now = held.age, xray("basic").unacknowledged[0].age
    assert before is not None
    assert now is not None
    return now > before


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


# --- what other programs have left ---


class Trap:
    """A pickle of it writes to the disk of whoever opens it."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (Path(tempfile.gettempdir()) / f"sprung-{os.getpid()}",))


PICKLE = pickle.dumps(Trap())
DEEP = b"[" * 100_000
SEPARATOR = "\x06\x16"
# What lies at a key of the broker, and what the X-ray says of it.
FOREIGN_KEYS: dict[str, tuple[str, object, str]] = {
    "a queue that is a hash": ("basic", {"a": "b"}, "hash"),
    "a queue that is text": ("basic", "hello", "'hello'"),
    "a priority list that is a set": (f"basic{SEPARATOR}3", {"a"}, "set"),
    "a list with another separator": ("basic|3", ["x"], "basic|3"),
    "what is taken is a list": ("unacked", ["x"], "unacked"),
    "the index is text": ("unacked_index", "x", "unacked_index"),
    "an entry that is no JSON": ("unacked", {"tag": b"\xff\x00"}, "not an entry of kombu: '\\\\xff\\x00'"),
    "an entry that is a number": ("unacked", {"tag": "3"}, "not an entry of kombu: '3'"),
    "an entry with two parts": ("unacked", {"tag": "[{}, 1]"}, "not an entry of kombu"),
    "an entry nested without end": ("unacked", {"tag": DEEP}, "not an entry of kombu: '[[["),
    "a binding with another separator": ("_kombu.binding.x", {"a|b|c"}, "not three parts: 'a|b|c'"),
    "a binding without a part": ("_kombu.binding.x", {""}, "not three parts: ''"),
    "a binding with five parts": ("_kombu.binding.x", {SEPARATOR.join("abcde")}, "not three parts"),
    "a binding that is no text": ("_kombu.binding.x", {b"\xff"}, "not three parts: '\\\\xff'"),
    "bindings that are a list": ("_kombu.binding.x", ["a"], "the key is no set"),
    "workers that listen, as text": ("_kombu.binding.celery.pidbox", "x", "the key is no set"),
    "a job of RQ": ("rq:queue:default", ["8d1f"], "rq:queue:default"),
    "a job of Huey": ("huey.redis.learn", [PICKLE], "'\\\\x80\\x04"),
    "a message of Dramatiq": ("dramatiq:default.msgs", {"id": "{}"}, "dramatiq:default.msgs"),
    "a message of Taskiq": ("taskiq", ['{"task_id": "1"}'], '\'{"task_id": "1"}\''),
    "a name that is no text": ("\udcff", ["x"], "\\xff"),
    "a name that is markup": ("[/red]", ["x"], "[/red]"),
    "a name that clears the screen": ("\x1b[2J", ["x"], "\\x1b[2J"),
}


def put(client: redis.Redis, key: str, value: Any) -> None:
    name = key.encode(errors="surrogateescape")
    match value:
        case dict():
            client.hset(name, mapping=value)
        case set():
            client.sadd(name, *value)
        case list():
            client.lpush(name, *value)
        case _:
            client.set(name, value)


def seen(view: XRay) -> str:
    """Look at an X-ray in every way. Return what a wide terminal shows."""
    json.loads(view.as_json(), parse_constant=pytest.fail)  # NaN is no JSON
    view._repr_mimebundle_()
    for message in view.messages:
        message.text().encode()
    assert view.text().startswith("Queues")
    text = console.as_text(view, width=5000)
    assert not [sign for sign in text if not sign.isprintable() and sign != "\n"]
    return text


@pytest.mark.parametrize("case", FOREIGN_KEYS)
def test_what_others_left_in_the_broker_is_shown_and_stops_nothing(sandbox: Sandbox, case: str) -> None:
    key, value, told = FOREIGN_KEYS[case]
    result = multiply.delay(6, 7)
    put(sandbox.broker.client(), "advanced", [raw_message(sandbox, "basic")])
    sandbox.broker.client().delete("basic")
    put(sandbox.broker.client(), key, value)
    text = seen(xray(limit=30))
    assert told in text
    assert result.id in text  # and the rest is shown
    assert sum(xray().waiting["advanced"].values()) == 1
    assert "advanced" in seen(xray("advanced"))
    assert get_queue_length("advanced")["waiting"] == 1


def changed(message: dict[str, Any], **parts: Any) -> str:
    return json.dumps(message | parts)


def encoded(body: object) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


OLD = {"task": "old.add", "id": "an-old-id", "args": [1, 2], "kwargs": {}, "retries": 0}
# The parts of a message that are changed, and what the X-ray says of it.
FOREIGN_PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "protocol 1": ({"headers": {}, "body": encoded(OLD)}, "an-old-id"),
    "YAML": ({"content-type": "application/x-yaml"}, "body not opened: application/x-yaml"),
    "MessagePack": ({"content-type": "application/x-msgpack"}, "body not opened: application/x-msgpack"),
    "text that is no base64": ({"properties": {}, "body": "x"}, "body not opened"),
    "a body that is text": ({"body": encoded("abc")}, "it holds no arguments of a task: '\"abc\"'"),
    "arguments that are text": ({"body": encoded(["ab", {}, {}])}, "it holds no arguments of a task"),
    "arguments that are a number": ({"body": encoded([1, {}, {}])}, "it holds no arguments of a task"),
    "keywords that are pairs": ({"body": encoded([[], [["a", 1]], {}])}, "it holds no arguments of a task"),
    "nothing beside the arguments": ({"body": encoded([[1, "two"], {}, None])}, "1, 'two'"),
    "a body that is an object": ({"body": {"a": 1}}, "not a message of Celery"),
    "headers that are pairs": ({"headers": [["id", "1"]]}, "not a message of Celery"),
    "a body nested without end": (
        {"body": base64.b64encode(DEEP).decode()},
        "body not opened: it is nested too deep",
    ),
    "NaN and infinity": ({"body": encoded([[math.nan, math.inf], {}, {}])}, "nan, inf"),
    "a number of 4000 digits": ({"body": encoded([[10**4000], {}, {}])}, "1000000000"),
    "half a letter": ({"body": encoded([["\ud800"], {}, {}])}, "'\\ud800'"),
    "a task that is markup": ({"headers": {"task": "[/red]", "id": "[bold]"}}, "[bold]"),
    "a task that is a list": ({"headers": {"task": ["x"], "id": {"y": 1}}}, "{'y': 1}"),
    "a retry that is text": ({"headers": {"task": "x", "id": "y", "retries": "z"}}, "[retry z]"),
}


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("case", FOREIGN_PARTS)
def test_a_message_of_another_kind_is_shown_as_what_it_is(sandbox: Sandbox, case: str, taken: bool) -> None:
    parts, told = FOREIGN_PARTS[case]
    result = add.delay(1, 2)
    client = sandbox.broker.client()
    message = json.loads(raw_message(sandbox, "basic"))
    if taken:
        client.hset("unacked", "tag", json.dumps([message | parts, "", "basic"]))
        client.zadd("unacked_index", {"tag": time.time()})
    else:
        client.lpush("basic", changed(message, **parts))
    text = seen(xray(limit=2))
    assert told in text
    assert result.id in text


def test_a_message_that_the_index_does_not_know_has_no_age(sandbox: Sandbox) -> None:
    result = add.delay(1, 2)
    client = sandbox.broker.client()
    message = json.loads(raw_message(sandbox, "basic"))
    entry = json.dumps([message, "", "basic"])
    client.hset("unacked", mapping={"known": entry, "lost": entry})
    client.zadd("unacked_index", {"known": 1.0, "acknowledged": 2.0})
    known, lost = xray("basic").unacknowledged
    assert (known.message.id, lost.message.id) == (result.id, result.id)
    assert known.age
    assert lost.age is None


# What lies at a key of the result database, and what the X-ray says of it.
FOREIGN_RESULTS: dict[str, tuple[str, object, str]] = {
    "a pickle": ("celery-task-meta-x", PICKLE, "not a result in JSON: '\\\\x80\\x04"),
    "YAML": ("celery-task-meta-x", "status: SUCCESS", "not a result in JSON: 'status: SUCCESS'"),
    "compressed": ("celery-task-meta-x", b"\x00celery-compressed\x00", "not a result in JSON"),
    "half of it": ("celery-task-meta-x", '{"status": "SUC', "not a result in JSON"),
    "no text": ("celery-task-meta-x", b"\xff", "not a result in JSON: '\\\\xff'"),
    "nested without end": ("celery-task-meta-x", DEEP, "not a result in JSON: '[[["),
    "another object": ("celery-task-meta-x", '{"result": 1}', 'not a result in JSON: \'{"result"'),
    "a list": ("celery-task-meta-x", "[1]", "not a result in JSON: '[1]'"),
    "a hash": ("celery-task-meta-x", {"a": "b"}, "hash, not a string"),
    "too big": ("celery-task-meta-x", b"x" * 2_000_000, "2,000,000 bytes, not opened"),
    "a value of a type": (
        "celery-task-meta-x",
        '{"status": "SUCCESS", "result": {"__type__": "uuid", "__value__": 3}}',
        "'__type__': 'uuid'",
    ),
    "a state that is a number": ("celery-task-meta-x", '{"status": 3, "result": NaN}', "nan"),
    "the counter of a chord": ("celery-taskset-meta-x.s", "2", "Other keys"),
    "the results of a chord": ("celery-taskset-meta-x.j", ["x"], "celery-taskset-meta-x.j"),
    "a name that is no text": ("celery-task-meta-\udcff", PICKLE, "\\xff"),
}


@pytest.mark.parametrize("case", FOREIGN_RESULTS)
def test_what_others_left_in_the_result_backend_is_shown(sandbox: Sandbox, case: str) -> None:
    key, value, told = FOREIGN_RESULTS[case]
    app.backend.store_result("ours", 42, "SUCCESS")
    put(sandbox.broker.client(RESULT_DATABASE), key, value)
    text = seen(xray())
    assert told in text
    assert "42" in text


def test_no_pickle_is_opened(sandbox: Sandbox) -> None:
    for database in (BROKER_DATABASE, RESULT_DATABASE):
        for key in ("basic", "unacked", "celery-task-meta-x", "x"):
            put(sandbox.broker.client(database), key, {"tag": PICKLE} if key == "unacked" else [PICKLE])
        put(sandbox.broker.client(database), "celery-task-meta-y", PICKLE)
    seen(xray())
    assert not (Path(tempfile.gettempdir()) / f"sprung-{os.getpid()}").exists()


def test_a_full_redis_can_be_looked_into(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.start_worker(["basic"], include=["tests.helper_tasks"])
    result = mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
    wait_for("the task runs", lambda: lines(tmp_path / "runs"))
    client = sandbox.broker.client()
    client.config_set("maxmemory", 1)
    try:
        view = xray()
    finally:
        client.config_set("maxmemory", 0)
    assert [taken.message.id for taken in view.unacknowledged] == [result.id]
    assert view.notes[0].startswith("The workers were not asked: ")
    assert "not asked" in view.text()
    (tmp_path / "release").touch()
    wait_for("it is acknowledged", lambda: xray("basic").unacknowledged == ())


ODD_ANSWERS: list[Any] = [{}, None, [], 3, {"error": "x"}, [1, None, {}], [{"eta": 1, "request": 3}]]


@pytest.mark.parametrize("answer", ODD_ANSWERS)
def test_a_worker_may_answer_oddly(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    add.delay(1, 2)
    client = sandbox.broker.client()
    client.hset("unacked", "tag", json.dumps([json.loads(raw_message(sandbox, "basic")), "", "basic"]))
    for question in ("scheduled", "query_task"):
        monkeypatch.setattr(Inspect, question, lambda *_: {"odd@host": answer})
    assert xray("basic").unacknowledged[0].state == "no answer"
    seen(xray("basic"))


# --- how it is shown ---


def test_notebooks_get_tables_and_text(sandbox: Sandbox) -> None:
    add.delay(1, 2)
    shown: Any
    for shown in (xray(), xray("basic").messages[0]):
        bundle = shown._repr_mimebundle_()
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
