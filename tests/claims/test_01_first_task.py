"""The claims of notebook 01, on the tasks that it uses."""

import base64
import json
from pathlib import Path

import pytest
from celery.app.defaults import DEFAULTS
from celery.exceptions import NotRegistered, TimeoutError
from kombu.exceptions import EncodeError

from celery_app import app
from lab.evidence import log_lines, waiting
from lab.sandbox import Sandbox
from lab.timeline import Timeline
from lab.wrong_tasks import month_name
from settings import RESULT_DATABASE
from tasks.basic_tasks import add, greet, simple_calculation
from tests.helper_tasks import ERRORS, fail_with, mark_and_wait
from tests.waiting import lines, wait_for
from tests.workers import start


def test_a_message_holds_a_name(sandbox: Sandbox) -> None:
    """01.1 A message holds the name of its task and no code: a worker that does not know the name cannot run
    it.
    """
    result = month_name.delay({"May": "May"}, "May")
    message = json.loads(sandbox.broker.client().lindex("basic", 0) or "")
    assert message["headers"]["task"] == "lab.wrong_tasks.month_name"
    arguments, keywords, embedded = json.loads(base64.b64decode(message["body"]))
    assert (arguments, keywords) == ([{"May": "May"}, "May"], {})
    assert set(embedded.values()) == {None}

    worker = sandbox.start_worker(["basic"], "without")
    with pytest.raises(NotRegistered):
        result.get(timeout=20)
    worker.kill()
    sandbox.start_worker(["basic"], "with", include=["lab.wrong_tasks"])
    assert month_name.delay({"May": "May"}, "May").get(timeout=20) == "May"


def test_a_get_that_times_out(sandbox: Sandbox) -> None:
    """01.2 When its time is over, `get(timeout=…)` raises TimeoutError; the message stays on the queue, and a
    later worker runs the task.
    """
    result = add.delay(4, 5)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.2)
    assert waiting("basic") == 1
    sandbox.start_worker(["basic"])
    assert result.get(timeout=20) == 9


def test_pending_means_unknown(sandbox: Sandbox) -> None:
    """01.3 PENDING means "unknown": `delay()` stores nothing in the result backend, so a task that waits has
    the same state as an id that was never sent.
    """
    waits = add.delay(4, 5)
    results = sandbox.broker.client(RESULT_DATABASE)
    assert results.keys() == []
    assert (waits.state, app.AsyncResult("no-such-id").state) == ("PENDING", "PENDING")
    sandbox.start_worker(["basic"])
    assert waits.get(timeout=20) == 9
    assert results.keys() == [f"celery-task-meta-{waits.id}".encode()]


@pytest.mark.parametrize(("setting", "state"), [({}, "PENDING"), ({"task_track_started": True}, "STARTED")])
def test_the_state_of_a_running_task(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: dict[str, bool],
    state: str,
) -> None:
    """01.4 By default a running task is PENDING too; with `task_track_started` its state is STARTED."""
    default = {"task_track_started": DEFAULTS["task_track_started"]}
    monkeypatch.setenv("TEST_CONF", json.dumps(default | setting))
    sandbox.start_worker(["basic"], include=["tests.helper_tasks"])
    runs, release = tmp_path / "runs", tmp_path / "release"
    result = mark_and_wait.delay(str(runs), str(release))
    wait_for("it runs", lambda: lines(runs))
    assert result.state == state
    release.touch()
    assert result.get(timeout=20) == "released"


def test_the_broker_keeps_messages(sandbox: Sandbox) -> None:
    """01.5 `delay()` does not notice that no worker is there: the broker keeps the message, and the next
    worker runs the task.
    """
    worker = sandbox.start_worker(["basic"])
    assert greet.delay("Grace").get(timeout=20) == "Hello, Grace!"
    worker.kill()
    clients = sandbox.broker.client()
    wait_for("the broker knows", lambda: clients.info("clients")["blocked_clients"] == 0)
    result = greet.delay("Ada")
    assert waiting("basic") == 1
    sandbox.start_worker(["basic"])
    assert result.get(timeout=20) == "Hello, Ada!"


def test_an_error_travels_back(sandbox: Sandbox) -> None:
    """01.6 An error in a task becomes the state FAILURE, and `get()` raises it in your program, made anew
    from its class and its `args`.
    """
    start(sandbox)
    result = simple_calculation.delay(2, 8, "power")
    with pytest.raises(ValueError, match="operation='power': use one of add"):
        result.get(timeout=20)
    assert result.state == "FAILURE"
    for name, arguments in [("LookupError", ["one", 2]), ("StationAway", ["north", 503])]:
        result = fail_with.delay(name, *arguments)
        error = result.get(timeout=20, propagate=False)
        assert (type(error), error.args) == (ERRORS[name], tuple(arguments))
        assert result.state == "FAILURE"


def test_an_error_that_nobody_asks_for(sandbox: Sandbox) -> None:
    """01.7 If nobody calls `get()`, an error in a task raises nothing in your program: it is in the result
    backend, in the log of the worker and in its events.
    """
    worker = sandbox.start_worker(["basic"])
    with Timeline() as timeline:
        result = simple_calculation.delay(2, 8, "power")
        [run] = timeline.wait_for(result.id)
    assert add.delay(4, 5).get(timeout=20) == 9  # nothing was raised, here or by a later call
    assert (result.state, run.outcome) == ("FAILURE", "failed")
    assert "ValueError" in run.detail
    assert type(app.AsyncResult(result.id).result) is ValueError
    assert log_lines(worker, result.id, until="raised unexpected: ValueError")


def test_what_json_cannot_write(sandbox: Sandbox) -> None:
    """01.8 An argument that JSON cannot write raises EncodeError in `delay()`, and nothing is sent."""
    endless: list[object] = []
    endless.append(endless)
    for argument in ({"Ada", "Grace"}, object(), 1j, {(1, 2): "a tuple as a key"}, endless):
        with pytest.raises(EncodeError):
            greet.delay(argument)
    assert waiting() == 0
