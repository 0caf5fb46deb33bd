"""Faults do what they say, can be undone, and touch nothing but processes of this sandbox."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kombu.exceptions import OperationalError

from celery_app import app
from lab.faults import fill, flush, kill_child, make_room, slow_network
from lab.processes.connection import Process
from lab.sandbox import Broker, Sandbox, SandboxError, Worker
from settings import ROOT
from tasks.basic_tasks import add
from tests.helper_tasks import mark_and_wait, process_id
from tests.waiting import lines, wait_for

HELPERS = ["tests.helper_tasks"]


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that no sandbox has started, in a group of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    )
    yield process
    assert process.poll() is None, "the stranger was killed"
    assert psutil.Process(process.pid).status() != psutil.STATUS_STOPPED, "the stranger was frozen"
    process.communicate(b"\n", timeout=10)


def test_the_child_that_runs_a_task_is_killed_and_the_worker_lives(sandbox: Sandbox, tmp_path: Path) -> None:
    worker = sandbox.start_worker(["basic"], include=HELPERS)
    result = mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
    [pid] = wait_for("it runs", lambda: lines(tmp_path / "runs"))
    wait_for("the worker knows", lambda: result.state == "STARTED")
    assert kill_child(worker, result.id) == int(pid)
    wait_for("the child is gone", lambda: not psutil.pid_exists(int(pid)))
    (tmp_path / "release").touch()
    assert result.get(timeout=30) == "released"  # by another child: task_retry_on_worker_lost
    assert psutil.pid_exists(worker.pid)


def test_any_child_is_killed_and_replaced(sandbox: Sandbox) -> None:
    worker = sandbox.start_worker(["basic"], include=HELPERS)
    pid = kill_child(worker)
    wait_for("the child is gone", lambda: not psutil.pid_exists(pid))
    assert process_id.delay().get(timeout=20) != pid


def test_a_task_that_does_not_run_has_no_child_to_kill(sandbox: Sandbox) -> None:
    worker = sandbox.start_worker(["basic"])
    with pytest.raises(
        SandboxError, match=r"task_id='no-such-id': the worker sandbox-basic@\S+ does not run it"
    ):
        kill_child(worker, "no-such-id")


def test_a_pool_without_children_is_told(sandbox: Sandbox) -> None:
    worker = sandbox.start_worker(["basic"], pool="solo")
    with pytest.raises(SandboxError, match="has no pool child to kill"):
        kill_child(worker)
    assert add.delay(1, 2).get(timeout=10) == 3


def test_an_ended_worker_is_left_alone(sandbox: Sandbox) -> None:
    worker = sandbox.start_worker(["basic"])
    worker.kill()
    for fault in (lambda: kill_child(worker), worker.freeze, worker.thaw):
        with pytest.raises(SandboxError, match="is not running in this sandbox: left alone"):
            fault()


def test_a_process_of_somebody_else_is_left_alone(
    sandbox: Sandbox, stranger: subprocess.Popen[bytes]
) -> None:
    process = Process("stranger", stranger.pid, Path(os.devnull))
    worker = Worker(sandbox.connection, process)
    broker = Broker(sandbox.connection, sandbox.folder, process)
    for fault in (lambda: kill_child(worker), worker.freeze, worker.thaw, broker.freeze):
        with pytest.raises(SandboxError, match=f"process {stranger.pid}\\) is not running in this sandbox"):
            fault()
    worker.kill()  # the supervisor ends only children of its own
    worker.stop()


USERS_BROKER = "from lab.sandbox import Sandbox\nwith Sandbox() as sandbox: sandbox.broker.freeze()"


def test_a_broker_of_the_user_is_left_alone(sandbox: Sandbox) -> None:
    broker = sandbox.broker
    program = subprocess.run(
        [sys.executable, "-c", USERS_BROKER],
        cwd=ROOT,
        env=os.environ | {"CELERY_BROKER_URL": broker.url, "CELERY_RESULT_BACKEND": broker.result_backend},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert f"SandboxError: The broker {broker.url} is not the sandbox's: left alone." in program.stderr
    assert broker.client().ping()


def test_a_full_broker_refuses_messages_keeps_the_old_ones_and_can_be_emptied(sandbox: Sandbox) -> None:
    waiting = add.delay(1, 2)
    fill(sandbox.broker)
    try:
        with pytest.raises(OperationalError, match="maxmemory"):
            add.delay(3, 4)
        assert sandbox.broker.client().llen("basic") == 1
    finally:
        make_room(sandbox.broker)
    sandbox.start_worker(["basic"])
    assert waiting.get(timeout=10) == 3
    assert add.delay(3, 4).get(timeout=10) == 7


def test_flush_loses_what_waits_and_keeps_results(sandbox: Sandbox) -> None:
    worker = sandbox.start_worker(["basic"])
    done = add.delay(1, 2)
    done.get(timeout=10)
    worker.kill()
    add.delay(3, 4)
    assert flush(sandbox.broker) > 0
    assert sandbox.broker.client().dbsize() == 0
    assert app.AsyncResult(done.id).state == "SUCCESS"


def test_a_message_over_a_slow_network_arrives_late_and_whole(sandbox: Sandbox) -> None:
    sandbox.start_worker(["basic"])
    seconds = 0.1
    with slow_network(sandbox.broker, seconds) as url, app.connection_for_write(url) as connection:
        started = time.monotonic()
        result = add.apply_async((4, 5), connection=connection)
        assert time.monotonic() - started >= 2 * seconds  # there and back
    assert result.get(timeout=10) == 9
    with pytest.raises(ValueError, match="seconds=-1: must be 0 or more"), slow_network(sandbox.broker, -1):
        pass
