"""The web front as processes: API, broker and worker are killed, and nothing is lost or done twice."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx2 as httpx
import hypothesis
import pytest
import requests
import schemathesis
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance
from sqlalchemy import select

from api.dispatcher import AWAY
from api.users import COOKIE
from broker import broker_channel, queue_lengths
from lab.sandbox import Sandbox, connect
from lab.web import listen
from services.database import migrate, reading, writing
from services.models import TaskRecord
from services.redis_clients import client as redis_client
from services.task_records import create, find
from services.task_runs import LEASE, LOST, claim
from services.token_stream import RedisStreamPublisher, key_of
from tests.newcomer import Terminal, free_port
from tests.waiting import lines, processes_of, wait_for, wait_until_idle
from tests.web_front import Api, events_in, serving, slow_task
from tests.workers import start

NONE = list(hypothesis.HealthCheck)  # the machine may be busy
PROMPT = {"prompt": "A short story", "max_tokens": 5}

pytestmark = pytest.mark.usefixtures("data")


@pytest.fixture
def api(sandbox: Sandbox) -> Iterator[Api]:
    with serving() as api:
        yield api


def waiting(queue: str = "ai") -> int:
    with broker_channel() as channel:
        return queue_lengths(channel)[queue]["waiting"]


def status_of(task_id: str) -> str:
    return find(task_id).status


def sent() -> int:
    with reading() as session:
        return len(session.scalars(select(TaskRecord).where(TaskRecord.dispatched_at.is_not(None))).all())


def let_the_lease_pass(task_id: str) -> None:
    with writing() as session:
        row = session.scalars(select(TaskRecord).where(TaskRecord.id == task_id)).one()
        assert row.heartbeat_at
        row.heartbeat_at -= 3 * LEASE


# --- the outbox ---


@pytest.mark.parametrize("deadly", ["api.dispatcher.publish", "api.dispatcher.mark_sent"])
def test_a_task_whose_api_was_killed_while_sending_it_runs_once(
    sandbox: Sandbox, tmp_path: Path, deadly: str
) -> None:
    migrate()
    with serving(deadly) as first:
        client = first.client()
        task_id = slow_task(client.cookies[COOKIE], tmp_path)
        assert first.process.wait(20) == -9
    messages = {"api.dispatcher.publish": 0, "api.dispatcher.mark_sent": 1}[deadly]
    assert (waiting("basic"), status_of(task_id), find(task_id).dispatched_at) == (messages, "pending", None)
    with serving(dispatcher__LEASE=0.1):
        wait_for("it is sent", lambda: find(task_id).dispatched_at)
        assert waiting("basic") == messages + 1
        (tmp_path / "end").touch()
        start(sandbox)
        wait_for("it has run", lambda: status_of(task_id) == "completed")
        wait_until_idle(sandbox, "basic")
    assert (find(task_id).runs, len(lines(tmp_path / "runs"))) == (1, 1)


def test_of_two_api_processes_each_message_is_sent_by_one(sandbox: Sandbox) -> None:
    with serving() as one, serving() as other:
        cookies = one.client().cookies
        clients = [one.client(cookies), other.client(cookies)]
        for number in range(40):
            assert clients[number % 2].post("/tasks", json=PROMPT).status_code == 201
        wait_for("all are sent", lambda: sent() == 40)
        assert waiting() == 40


def test_tasks_that_come_while_the_broker_is_down_run_once_each_when_it_is_back(
    sandbox: Sandbox, api: Api
) -> None:
    client = api.client()
    sandbox.broker.stop()
    tasks = [client.post("/tasks", json=PROMPT).json() for _ in range(5)]
    assert [task["status"] for task in tasks] == ["pending"] * 5
    path = f"/tasks/{tasks[0]['id']}"
    wait_for("the API says why", lambda: client.get(path).json()["note"] == AWAY)
    sandbox.broker.start()
    sandbox.start_worker(["ai"])
    wait_for("five results", lambda: {status_of(task["id"]) for task in tasks} == {"completed"})
    assert [find(task["id"]).runs for task in tasks] == [1] * 5
    assert client.get(path).json()["note"] == ""


def test_a_row_that_nobody_can_send_stops_no_other(sandbox: Sandbox, api: Api) -> None:
    client = api.client()
    stranger = create("tasks.nobody", {}, "ada").record.id
    task_id = client.post("/tasks", json=PROMPT).json()["id"]
    wait_for("the other one is sent", lambda: find(task_id).dispatched_at)
    assert find(stranger).dispatched_at is None
    assert "no task has the name 'tasks.nobody' here" in api.log.read_text()


def test_a_frozen_broker_keeps_no_request_waiting(sandbox: Sandbox, api: Api) -> None:
    client = api.client()
    sandbox.broker.freeze()
    try:
        task_id = client.post("/tasks", json=PROMPT).json()["id"]
        wait_for("the API says why", lambda: client.get(f"/tasks/{task_id}").json()["note"] == AWAY)
    finally:
        sandbox.broker.thaw()
    wait_for("it is sent", lambda: waiting() >= 1)


# --- events ---


def test_tokens_arrive_while_the_task_runs_and_a_cut_connection_goes_on_where_it_was(
    sandbox: Sandbox, api: Api, tmp_path: Path
) -> None:
    client = api.client()
    task_id = slow_task(client.cookies[COOKIE], tmp_path)
    start(sandbox)
    last = ""
    for number in (1, 2):  # each time the connection is cut after one token
        (tmp_path / str(number)).touch()
        headers = {"Last-Event-ID": last} if last else {}
        with client.stream("GET", f"/tasks/{task_id}/events", headers=headers) as stream:
            token = next(event for event in events_in(stream.iter_lines()) if event["event"] == "token")
            assert token["data"] == {"text": f"word-{number} "}  # nothing again, and nothing is missing
            last = token["id"]
    (tmp_path / "3").touch()
    stream_key = key_of(task_id)
    wait_for("a token while nobody reads", lambda: "word-3" in str(redis_client().xrange(stream_key)))
    (tmp_path / "end").touch()
    with client.stream("GET", f"/tasks/{task_id}/events", headers={"Last-Event-ID": last}) as stream:
        events = list(events_in(stream.iter_lines()))
    assert [event["data"]["text"] for event in events if event["event"] == "token"] == ["word-3 "]
    assert (events[-1]["event"], events[-2]["data"]["result"]) == ("end", {"text": "word-1 word-2 word-3 "})
    with client.stream("GET", f"/tasks/{task_id}/events") as stream:  # a reload: all from the beginning
        whole = list(events_in(stream.iter_lines()))
    text = "".join(event["data"]["text"] for event in whole if event["event"] == "token")
    assert text == "word-1 word-2 word-3 "


def test_events_follow_the_row_while_redis_is_away(sandbox: Sandbox, api: Api, tmp_path: Path) -> None:
    client = api.client()
    sandbox.broker.stop()
    task_id = slow_task(client.cookies[COOKIE], tmp_path)
    with client.stream("GET", f"/tasks/{task_id}/events") as stream:
        events = events_in(stream.iter_lines())
        assert next(events)["data"]["status"] == "pending"
        run = claim(task_id)
        assert run
        run.report(40, "four of ten")
        assert any(event["data"]["percent"] == 40 for event in events)
        run.complete("done")
        assert [event["event"] for event in events][-2:] == ["task", "end"]


def test_a_client_that_stops_reading_is_let_go_and_the_others_are_served(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with serving(guard__SEND_SECONDS=0.5) as api:
        client = api.client()
        task_id = slow_task(client.cookies[COOKIE], tmp_path)
        publisher = RedisStreamPublisher(redis_client(), task_id)
        port = int(api.address.rpartition(":")[2])
        with closing(socket.socket()) as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.connect(("127.0.0.1", port))
            request = f"GET /tasks/{task_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            lazy.sendall(f"{request}Cookie: {COOKIE}={client.cookies[COOKIE]}\r\n\r\n".encode())
            assert lazy.recv(100).startswith(b"HTTP/1.1 200")
            for _ in range(300):
                publisher.publish("token", text="x" * 50_000)
            wait_for("it is let go", lambda: "has stopped reading" in api.log.read_text())
            assert client.get(f"/tasks/{task_id}").status_code == 200
            lazy.settimeout(10)
            while lazy.recv(1_000_000):
                pass  # what was on its way, and then the end of the connection
        assert "Traceback" not in api.log.read_text()


def test_clients_that_leave_while_more_comes_leave_no_error_behind(api: Api, tmp_path: Path) -> None:
    client = api.client()
    task_id = slow_task(client.cookies[COOKIE], tmp_path)
    publisher, last = RedisStreamPublisher(redis_client(), task_id), threading.Event()

    def publish() -> None:
        while not last.is_set():
            publisher.publish("token", text="word ")

    writer = threading.Thread(target=publish)
    writer.start()
    try:
        for _ in range(40):
            with client.stream("GET", f"/tasks/{task_id}/events") as stream:
                assert next(event for event in events_in(stream.iter_lines()) if event["event"] == "token")
    finally:
        last.set()
        writer.join()
    assert client.get(f"/tasks/{task_id}").status_code == 200
    assert "Traceback" not in api.log.read_text()


def test_a_killed_worker_leaves_a_row_that_says_so_and_a_replay_runs_it(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with serving(dispatcher__SWEEP_SECONDS=0.2) as api:
        client = api.client()
        task_id = slow_task(client.cookies[COOKIE], tmp_path)
        worker = start(sandbox)
        with client.stream("GET", f"/tasks/{task_id}/events") as stream:
            events = events_in(stream.iter_lines())
            (tmp_path / "1").touch()
            assert any(event["event"] == "token" for event in events)
            worker.kill()
            let_the_lease_pass(task_id)
            *_, task, end = events
        assert (task["data"]["status"], task["data"]["error"], end["event"]) == ("failed", LOST, "end")
        assert client.post(f"/tasks/{task_id}/replay").json()["status"] == "pending"
        (tmp_path / "end").touch()
        start(sandbox)
        wait_for("it has run", lambda: status_of(task_id) == "completed")
        assert find(task_id).runs == 2


# --- recordings ---


def test_a_recording_of_two_gigabytes_is_refused_while_it_arrives(api: Api, data: Path) -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        yield b"RIFF\x00\x00\x00\x00WAVE"
        while sent < 2_000_000_000:
            sent += 1_000_000
            yield bytes(1_000_000)

    client = api.client()
    # Only the head: the server closes, and what a client is still sending may cost it the rest of the answer.
    with client.stream("POST", "/audio", content=pieces(), headers={"Content-Type": "audio/wav"}) as answer:
        assert answer.status_code == 413
    assert sent < 250_000_000  # the rest was not read
    assert list((data / "recordings").iterdir()) == []
    assert client.get("/tasks").json() == []


def test_a_recording_that_is_no_recording_is_refused_at_once(api: Api, data: Path) -> None:
    pieces = iter([b"x" * 1_000_000] * 150)
    headers = {"Content-Type": "audio/wav"}
    with api.client().stream("POST", "/audio", content=pieces, headers=headers) as answer:
        assert answer.status_code == 422
    assert len(list(pieces)) > 100  # they were not sent
    assert list((data / "recordings").iterdir()) == []


# --- the command ---


@pytest.fixture
def web(copy: Path, environment: dict[str, str], room: Path) -> Iterator[Terminal]:
    """Run `./learn web` in a copy of the project. Nothing of it may be left, however it ends."""
    terminal = Terminal([], f"./learn web --no-browser --port {free_port()}", copy, environment)
    yield terminal
    with suppress(ProcessLookupError):  # it has ended
        terminal.interrupt()
    terminal.process.wait(30)
    wait_for("the end of all processes", lambda: not processes_of(room))


def test_learn_web_starts_all_parts_and_another_worker_and_ends_at_ctrl_c(web: Terminal, room: Path) -> None:
    address = web.wait_for_output(r"http://127\.0\.0\.1:\d+")[0]
    client = httpx.Client(base_url=address, timeout=20)
    client.get("/tasks")
    assert "<h1>" in client.get("/").text
    wait_for("a worker", lambda: client.get("/health").status_code == 200)
    connection = connect(room / "sandbox")
    assert connection
    with closing(connection):
        [worker] = connection.status().workers
        connection.end(worker.pid, signal.SIGKILL)
        web.wait_for_output("Another one starts")
        wait_for("another worker", lambda: connection.status().workers)
    wait_for("a worker", lambda: client.get("/health").status_code == 200)
    web.interrupt()
    web.end()
    assert "Traceback" not in web.output


def test_learn_web_leaves_nothing_when_it_is_killed(web: Terminal) -> None:
    web.wait_for_output("The page")
    web.process.kill()


def test_learn_web_says_that_a_port_is_taken(copy: Path, environment: dict[str, str], room: Path) -> None:
    with listen(0) as taken:
        port = taken.getsockname()[1]
        terminal = Terminal([], f"./learn web --no-browser --port {port}", copy, environment)
        terminal.end(1)
    assert f"port={port}: cannot listen there" in terminal.output
    wait_for("the end of all processes", lambda: not processes_of(room))


# --- what its own description allows and forbids, tried out ---


@pytest.mark.timeout(300)
def test_nothing_breaks_the_api_and_it_answers_as_it_describes(sandbox: Sandbox, api: Api) -> None:
    sandbox.start_worker(["health"])  # without any, GET /health is 503
    session = requests.Session()
    session.get(f"{api.address}/tasks")
    description = schemathesis.openapi.from_url(f"{api.address}/openapi.json")
    tried = []
    for found in description.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(max_examples=15, deadline=None, database=None, suppress_health_check=NONE)
        def ask(case: schemathesis.Case) -> None:
            # The check that is left out takes 5.0 for a whole number, as JSON Schema does. We do not.
            case.call_and_validate(
                base_url=api.address, session=session, excluded_checks=[positive_data_acceptance]
            )

        ask()
        tried.append(operation.label)
    assert {"POST /tasks", "GET /tasks/{task_id}/events"} <= set(tried)
