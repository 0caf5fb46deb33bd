"""The claims of notebook 10, on the tasks that it uses."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import WorkerLostError
from kombu.transport.redis import Channel

from celery_app import DRILL, app
from lab.evidence import is_running, received, started
from lab.sandbox import Sandbox
from lab.timeline import Timeline
from lab.wrong_tasks import (
    acknowledge_early,
    acknowledge_late,
    charge_after_check,
    crash,
    crash_and_reject,
    crash_and_retry,
)
from services import invoices
from services.paths import atomic_write
from settings import RESULT_DATABASE
from tasks.advanced_tasks import idempotent_task
from tasks.basic_tasks import add, simple_calculation
from tests.helper_tasks import call_at, mark_and_wait
from tests.waiting import lines, wait_for
from tests.workers import start

# Two looks at Redis by our own means. What is left there is what this lesson is about, so its tests do not
# depend on the code with which the notebook shows it.


def messages(sandbox: Sandbox) -> int:
    """Return how many messages the broker has, waiting or unacknowledged."""
    client = sandbox.broker.client()
    return int(client.llen("basic")) + int(client.hlen("unacked"))


def age(sandbox: Sandbox) -> float:
    """Return for how many seconds a worker has had the one message that is unacknowledged."""
    [entry] = sandbox.broker.client().zrange("unacked_index", 0, 0, withscores=True)
    return time.time() - float(entry[1])


def test_early_acknowledgement_loses(drill_sandbox: Sandbox) -> None:
    """10.1 With early acknowledgement, a task is lost when its worker is killed: no message is left, and
    its state never changes again.
    """
    worker = start(drill_sandbox)
    result = acknowledge_early.delay()
    wait_for("it runs", lambda: result.state == "STARTED")
    wait_for("it is acknowledged", lambda: messages(drill_sandbox) == 0)
    worker.kill()
    start(drill_sandbox)
    add.delay(1, 1).get(timeout=10)  # the new worker works, and there is nothing else to do
    wait_for("nothing is left", lambda: messages(drill_sandbox) == 0)
    assert result.state == "STARTED"


def test_late_acknowledgement_repeats(drill_sandbox: Sandbox) -> None:
    """10.2 With late acknowledgement, the message of a killed worker is delivered again after the
    visibility timeout.
    """
    pair = [start(drill_sandbox, name=name) for name in ("first", "second")]
    with Timeline() as timeline:
        result = acknowledge_late.delay()
        wait_for("it runs", lambda: started(timeline.runs))
        idle, busy = sorted(pair, key=lambda worker: received(worker, result.id))
        busy.kill()
        assert messages(drill_sandbox) == 1
        assert result.get(timeout=30) == "done"  # only a message that was delivered before ends so soon
        lost, done = timeline.wait_for(result)
    assert lost.received
    assert done.received
    # The other worker was there all the time, and got it only then.
    assert received(idle, result.id) == 1
    assert done.received - lost.received > DRILL["visibility_timeout"] - 0.5


@pytest.mark.parametrize("throttle", [1, 1000])
def test_when_workers_look(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, throttle: int) -> None:
    """10.3 A prefork worker looks for such messages when it starts, and then every
    `unacked_restore_interval` times `unacked_restore_throttle` seconds, by default every 100 seconds.
    """
    default: Any = Channel
    assert default.unacked_restore_interval * default.unacked_restore_throttle == 100

    times = {"visibility_timeout": 2, "unacked_restore_interval": 1, "unacked_restore_throttle": throttle}
    conf = {"broker_transport_options": app.conf.broker_transport_options | times}
    monkeypatch.setenv("TEST_CONF", json.dumps(conf))
    pair = [start(sandbox) for _ in range(2)]
    result = acknowledge_late.delay()
    wait_for("it runs", lambda: result.state == "STARTED")
    idle, busy = sorted(pair, key=lambda worker: received(worker, result.id))
    busy.kill()
    if throttle == 1:  # a look in each second
        assert result.get(timeout=30) == "done"
    else:  # none for a quarter of an hour, unless another worker starts
        wait_for("three looks would be over", lambda: age(sandbox) > 2 + 3)
        assert (received(idle, result.id), messages(sandbox)) == (0, 1)
        start(sandbox)
        assert result.get(timeout=30) == "done"


def test_a_message_that_nobody_has_recorded(drill_sandbox: Sandbox) -> None:
    """10.11 Also with late acknowledgement, a message is lost when its worker vanishes after Redis has handed
    it over, and before the worker has recorded it in `unacked`.
    """
    assert add.acks_late
    worker = start(drill_sandbox)
    broker = drill_sandbox.broker.client()
    while True:
        wait_for("it waits for a message", lambda: broker.info("clients")["blocked_clients"] == 1)
        worker.freeze()  # as in a machine that has lost power: nobody closes its connections
        result = add.delay(1, 1)
        if messages(drill_sandbox) == 0:
            break
        worker.thaw()  # its wait, which takes a second, was just over
        result.get(timeout=10)
    worker.kill()
    assert all(key.startswith(b"_kombu.binding") for key in broker.scan_iter())  # the message is nowhere
    start(drill_sandbox)
    assert add.delay(1, 1).get(timeout=10) == 2
    assert result.state == "PENDING"


def test_late_is_after_the_end_not_after_success(drill_sandbox: Sandbox) -> None:
    """10.4 A late-acknowledged task that raises is acknowledged all the same: it runs once, and fails."""
    worker = start(drill_sandbox)
    assert simple_calculation.acks_late
    result = simple_calculation.delay(2, 8, "power")
    with pytest.raises(ValueError, match="power"):
        result.get(timeout=10)
    wait_for("the acknowledgement", lambda: messages(drill_sandbox) == 0)
    assert (received(worker, result.id), result.state) == (1, "FAILURE")


def test_a_task_longer_than_the_visibility_timeout(drill_sandbox: Sandbox) -> None:
    """10.5 On Redis, a task that takes longer than the visibility timeout is delivered again while it
    still runs.
    """
    worker = start(drill_sandbox)
    result = acknowledge_late.delay()
    wait_for("the first run", lambda: result.state == "STARTED")
    # The first run takes a minute. The second sees that it is delivered again, and ends at once.
    assert result.get(timeout=30) == "done"
    assert received(worker, result.id) == 2


def test_a_check_and_a_mark_are_not_enough(sandbox: Sandbox) -> None:
    """10.6 A check before the work and a mark after it do not stop a second delivery: both runs pass the
    check.
    """
    both = [charge_after_check.delay("INV-1001", seconds=2) for _ in range(2)]
    start(sandbox)
    assert [result.get(timeout=20) for result in both] == ["charged", "charged"]
    assert sandbox.broker.client(RESULT_DATABASE).llen("charges") == 2


def test_an_atomic_claim_is(sandbox: Sandbox, tmp_path: Path) -> None:
    """10.7 An atomic claim, such as an insert into a unique column, lets exactly one of several deliveries
    do the work.
    """
    start(sandbox, concurrency=4)
    for number in range(10):
        invoices.forget_charges()
        answers = charge_at_one_moment(tmp_path / f"runs-{number}", tmp_path / f"moment-{number}")
        assert sorted(answers) == ["charged", *["charged before"] * 3]


def charge_at_one_moment(runs: Path, moment: Path) -> list[str]:
    """Let four processes charge the same invoice at the same moment, and return their answers."""
    arguments = (str(runs), str(moment), idempotent_task.name, "INV-1001")
    results = [call_at.delay(*arguments) for _ in range(4)]
    wait_for("all are there", lambda: len(lines(runs)) == 4)
    with atomic_write(moment) as file:
        file.write(str(time.time() + 0.1).encode())
    return [result.get(timeout=20) for result in results]


@pytest.mark.parametrize("late", [False, True])
def test_a_killed_child_fails_its_task(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """10.8 When a pool child is killed, its task fails with WorkerLostError and is not delivered again,
    whether it is acknowledged early or late.
    """
    monkeypatch.setenv("TEST_CONF", json.dumps({"task_acks_late": late}))
    worker = start(sandbox)
    result = crash.delay()
    with pytest.raises(WorkerLostError):
        result.get(timeout=30)
    wait_for("the acknowledgement", lambda: messages(sandbox) == 0)
    assert received(worker, result.id) == 1


def test_a_rejected_poison_message_comes_again_and_again(sandbox: Sandbox) -> None:
    """10.9 With `reject_on_worker_lost`, a task that kills its child is delivered again without limit."""
    worker = start(sandbox)
    result = crash_and_reject.delay()
    limit = crash_and_reject.max_retries + 1
    wait_for("more runs than retries", lambda: received(worker, result.id) > limit, seconds=60)
    assert result.state == "STARTED"


def test_a_retried_poison_message_fails_in_the_end(sandbox: Sandbox) -> None:
    """10.10 With `retry_on_worker_lost`, a task that kills its child runs at most `max_retries` + 1 times,
    and then fails.
    """
    worker = start(sandbox)
    result = crash_and_retry.delay()
    with pytest.raises(WorkerLostError):
        result.get(timeout=60)
    wait_for("the acknowledgement", lambda: messages(sandbox) == 0)
    assert received(worker, result.id) == crash_and_retry.max_retries + 1


@pytest.mark.parametrize("channel", ["kombu's own", "that of transport.py"])
def test_a_broker_that_restarts(sandbox: Sandbox, tmp_path: Path, channel: str) -> None:
    """10.12 With Celery and kombu 5.7.0, a worker that runs a task ends when its broker restarts. With the
    channel of `transport.py` it goes on, and the task succeeds.
    """
    stock = ["tests.own_connections"] if channel == "kombu's own" else []
    worker = sandbox.start_worker(["basic"], include=["tests.helper_tasks", *stock])
    result = mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
    wait_for("it runs", lambda: result.state == "STARTED" and lines(tmp_path / "runs"))
    sandbox.broker.restart()
    (tmp_path / "release").touch()
    if stock:
        wait_for("the end of the worker", lambda: not is_running(worker), seconds=30)
        assert "'NoneType' object has no attribute 'hostname'" in worker.log.read_text()
    else:
        assert result.get(timeout=30) == "released"
        assert add.delay(1, 2).get(timeout=40) == 3
        assert is_running(worker)
