"""Each setting of celery_app.py that differs from Celery's default, and its reason, on real processes."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import Celery
from celery.exceptions import WorkerLostError
from kombu.exceptions import OperationalError

from celery_app import LONGEST_TASK, RELIABLE, app
from lab.sandbox import Sandbox, Worker
from settings import ROOT
from tasks.advanced_tasks import prioritized_task
from tasks.basic_tasks import add, logged_task, task_with_progress
from tests.helper_tasks import hang, kill_own_process, mark, mark_and_wait, process_id
from tests.waiting import lines, wait_for

Start = Callable[..., Worker]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Return a function that starts a worker for the queue basic, with changed settings."""

    def start(sandbox: Sandbox, *options: str, concurrency: int = 2, **conf: Any) -> Worker:
        monkeypatch.setenv("TEST_CONF", json.dumps(conf))
        return sandbox.start_worker(
            ["basic", "advanced"],
            include=["tests.helper_tasks"],
            concurrency=concurrency,
            options=options,
        )

    return start


def unacknowledged(sandbox: Sandbox) -> int:
    return int(sandbox.broker.client().hlen("unacked"))


# --- delivery ---


def test_a_killed_worker_loses_an_early_acknowledged_task(
    drill_sandbox: Sandbox, start: Start, tmp_path: Path
) -> None:
    worker = start(drill_sandbox, task_acks_late=False)
    result = mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
    wait_for("the task runs", lambda: lines(tmp_path / "runs"))
    wait_for("it is acknowledged", lambda: unacknowledged(drill_sandbox) == 0)
    worker.kill()
    start(drill_sandbox)
    add.delay(1, 1).get(timeout=10)  # the new worker works, and there is nothing else to do
    assert (result.state, len(lines(tmp_path / "runs"))) == ("STARTED", 1)
    wait_for("nothing is held", lambda: unacknowledged(drill_sandbox) == 0)


def test_a_killed_worker_gives_back_a_late_acknowledged_task(
    drill_sandbox: Sandbox, start: Start, tmp_path: Path
) -> None:
    worker = start(drill_sandbox)
    result = mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
    wait_for("the task runs", lambda: lines(tmp_path / "runs"))
    worker.kill()
    assert unacknowledged(drill_sandbox) == 1
    start(drill_sandbox)
    wait_for("the task runs again", lambda: len(lines(tmp_path / "runs")) == 2, seconds=30)
    (tmp_path / "release").touch()
    assert result.get(timeout=10) == "released"


def test_a_task_longer_than_the_visibility_timeout_runs_twice_at_once(
    drill_sandbox: Sandbox, start: Start, tmp_path: Path
) -> None:
    start(drill_sandbox)
    mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
    wait_for("it runs a second time", lambda: len(lines(tmp_path / "runs")) == 2, seconds=30)
    assert not (tmp_path / "release").exists()  # the first run has not ended
    (tmp_path / "release").touch()


def test_the_visibility_timeout_is_longer_than_the_longest_task() -> None:
    assert RELIABLE["visibility_timeout"] > LONGEST_TASK == RELIABLE["task_time_limit"]


def test_a_task_that_kills_its_process_is_retried_three_times_and_then_fails(
    sandbox: Sandbox, start: Start, tmp_path: Path
) -> None:
    start(sandbox)
    result = kill_own_process.delay(str(tmp_path / "runs"))
    with pytest.raises(WorkerLostError):
        result.get(timeout=60)
    assert len(lines(tmp_path / "runs")) == 4
    wait_for("the message is gone", lambda: unacknowledged(sandbox) == 0)


def test_without_retry_on_worker_lost_it_fails_at_once(
    sandbox: Sandbox, start: Start, tmp_path: Path
) -> None:
    start(sandbox, task_retry_on_worker_lost=False)
    with pytest.raises(WorkerLostError):
        kill_own_process.delay(str(tmp_path / "runs")).get(timeout=30)
    assert len(lines(tmp_path / "runs")) == 1


@pytest.mark.parametrize(("multiplier", "held"), [(1, 2), (4, 8)])
def test_prefetch_decides_how_many_tasks_a_busy_worker_holds(
    sandbox: Sandbox, start: Start, tmp_path: Path, multiplier: int, held: int
) -> None:
    start(sandbox, "--prefetch-multiplier", str(multiplier))
    for _ in range(20):
        mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
    wait_for("two run", lambda: len(lines(tmp_path / "runs")) == 2)
    wait_for("the worker is full", lambda: unacknowledged(sandbox) == held)
    assert sandbox.broker.client().llen("basic") == 20 - held
    (tmp_path / "release").touch()


def test_sigquit_gives_running_tasks_back_after_the_soft_shutdown(
    sandbox: Sandbox, start: Start, tmp_path: Path
) -> None:
    worker = start(sandbox, worker_soft_shutdown_timeout=0.5)
    mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
    wait_for("the task runs", lambda: lines(tmp_path / "runs"))
    sandbox.connection.end(worker.pid, signal.SIGQUIT)
    assert sandbox.broker.client().llen("basic") == 1
    (tmp_path / "release").touch()
    start(sandbox)
    wait_for("the task runs again", lambda: len(lines(tmp_path / "runs")) == 2)


def test_sigterm_waits_for_the_running_task(sandbox: Sandbox, start: Start, tmp_path: Path) -> None:
    worker = start(sandbox)
    result = mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
    wait_for("the task runs", lambda: lines(tmp_path / "runs"))
    psutil.Process(worker.pid).terminate()
    wait_for("it has heard", lambda: "Warm shutdown" in worker.log.read_text())
    (tmp_path / "release").touch()
    assert result.get(timeout=15) == "released"


def test_a_task_that_does_not_listen_is_ended_by_the_hard_time_limit(
    sandbox: Sandbox, start: Start, tmp_path: Path
) -> None:
    start(sandbox)
    # The hard limit counts from the soft one: without a soft limit below it, it would come much later.
    result = hang.apply_async(args=[str(tmp_path / "marks")], soft_time_limit=0.5, time_limit=1)
    assert type(result.get(timeout=30, propagate=False)).__name__ == "TimeLimitExceeded"
    assert lines(tmp_path / "marks") == ["told to stop"]


def test_the_soft_time_limit_raises_in_the_task(sandbox: Sandbox, start: Start, tmp_path: Path) -> None:
    start(sandbox)
    result = mark_and_wait.apply_async(args=[str(tmp_path / "runs"), "/nowhere"], soft_time_limit=1)
    assert type(result.get(timeout=30, propagate=False)).__name__ == "SoftTimeLimitExceeded"


# --- Redis ---


def test_ten_priorities_are_served_in_order_zero_first(sandbox: Sandbox, start: Start) -> None:
    results = [prioritized_task.apply_async(args=[f"p{p}"], priority=p) for p in reversed(range(10))]
    start(sandbox, concurrency=1)
    values = sorted((result.get(timeout=20) for result in results), key=lambda value: value["started"])
    assert [value["label"] for value in values] == [f"p{p}" for p in range(10)]


@pytest.fixture
def other_broker() -> Iterator[Sandbox]:
    """Return a sandbox of its own, whose broker may be stopped and frozen."""
    with tempfile.TemporaryDirectory(prefix="learn-") as room, Sandbox(folder=Path(room) / "s") as sandbox:
        yield sandbox


def call_add(sandbox: Sandbox) -> subprocess.CompletedProcess[str]:
    """Send a task from a program of its own, without waiting for the result."""
    code = "from tasks.basic_tasks import add; add.delay(1, 2)"
    environment = {**os.environ, "SANDBOX_DIR": str(sandbox.folder)}
    # Celery's defaults take 19 s for a dead broker and more than 45 s for a frozen one.
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=15
    )


def test_delay_fails_fast_with_the_brokers_address_when_it_is_down(other_broker: Sandbox) -> None:
    other_broker.broker.stop()
    program = call_add(other_broker)
    last = program.stderr.splitlines()[-1]
    assert OperationalError.__name__ in last
    assert f"The broker at {other_broker.broker.url} does not answer" in last
    assert "./learn up" in last


def test_delay_fails_fast_when_the_broker_is_frozen(other_broker: Sandbox) -> None:
    other_broker.broker.freeze()
    program = call_add(other_broker)
    assert "does not answer (Timeout reading from socket)" in program.stderr.splitlines()[-1]


def test_a_worker_may_wait_for_its_broker(other_broker: Sandbox) -> None:
    other_broker.broker.stop()
    command = "celery -A celery_app worker --wait-for-broker --pool solo --loglevel info"
    worker = subprocess.Popen(
        [sys.executable, "-m", *command.split()],
        env=os.environ | {"SANDBOX_DIR": str(other_broker.folder)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert worker.stdout
        assert any("Cannot connect" in line for line in worker.stdout)
        other_broker.broker.start()
        assert any("ready." in line for line in worker.stdout)
    finally:
        worker.kill()
        worker.communicate()


# --- results, events, logs, children ---


def test_results_expire_after_an_hour_and_failures_after_a_day(sandbox: Sandbox, start: Start) -> None:
    start(sandbox)
    good, bad = add.delay(1, 2), task_with_progress.delay(total=-1)
    good.get(timeout=10)
    bad.get(timeout=10, propagate=False)
    backend = sandbox.broker.client(database=1)
    assert 3500 < backend.ttl(f"celery-task-meta-{good.id}") <= 3600
    assert 86_000 < backend.ttl(f"celery-task-meta-{bad.id}") <= 86_400


def test_a_task_id_is_enough_to_find_the_tasks_name(sandbox: Sandbox, start: Start) -> None:
    start(sandbox)
    task_id = add.delay(1, 2).id
    result = app.AsyncResult(task_id)
    result.get(timeout=10)
    assert result.name == "tasks.basic_tasks.add"
    assert list(result.args or ()) == [1, 2]


def test_a_running_task_is_started_not_pending(sandbox: Sandbox, start: Start, tmp_path: Path) -> None:
    start(sandbox)
    result = mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
    wait_for("it runs", lambda: lines(tmp_path / "runs"))
    assert result.state == "STARTED"
    (tmp_path / "release").touch()


def test_events_tell_of_each_step_of_a_task(sandbox: Sandbox, start: Start) -> None:
    start(sandbox)
    seen: list[str] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": lambda event: seen.append(event["type"])})
        task_id = None
        for _ in receiver.itercapture(limit=None, timeout=10, wakeup=False):
            task_id = task_id or add.delay(1, 2).id
            if {"task-sent", "task-succeeded"} <= set(seen):
                break
    steps = [name for name in seen if name.startswith("task-")]
    # The first one comes from the sender, the others from the worker: between the two there is no order.
    assert sorted(steps) == ["task-received", "task-sent", "task-started", "task-succeeded"]
    assert steps.index("task-received") < steps.index("task-started") < steps.index("task-succeeded")


def test_a_child_is_replaced_after_its_number_of_tasks(sandbox: Sandbox, start: Start) -> None:
    start(sandbox, "--max-tasks-per-child", "2", concurrency=1)
    pids = [process_id.delay().get(timeout=20) for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_a_child_is_replaced_when_it_has_too_much_memory(sandbox: Sandbox, start: Start) -> None:
    start(sandbox, "--max-memory-per-child", "1", concurrency=1)
    pids = [process_id.delay().get(timeout=20) for _ in range(2)]
    assert pids[0] != pids[1]


def test_a_line_in_the_log_names_task_and_id(sandbox: Sandbox, start: Start) -> None:
    worker = start(sandbox)
    result = logged_task.delay("hello")
    result.get(timeout=10)
    wait_for(
        "the line",
        lambda: f"tasks.basic_tasks.logged_task[{result.id}]: hello" in worker.log.read_text(),
    )


def test_handlers_of_the_root_logger_stay(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "own.log"
    monkeypatch.setenv("OWN_LOG", str(log))
    sandbox.start_worker(["basic"], include=["tests.own_logging"])
    logged_task.delay("hello").get(timeout=10)
    wait_for("the line in our own log", lambda: "hello" in "".join(lines(log)))


# --- schedule ---


def test_beat_sends_the_periodic_task_again_and_again(sandbox: Sandbox, start: Start, tmp_path: Path) -> None:
    worker = start(sandbox)
    beat = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_app", "beat"],
        env={**os.environ, "PERIODIC_TASK_SECONDS": "0.3"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for("three runs", lambda: worker.log.read_text().count("]: periodic task at") >= 3, seconds=30)
    finally:
        beat.terminate()
        beat.wait(timeout=20)


def test_without_a_worker_scheduled_tasks_expire_and_none_runs_late(
    sandbox: Sandbox, start: Start, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    expired = mark.apply_async(args=[str(runs), "old"], expires=-1)
    fresh = mark.apply_async(args=[str(runs), "new"], expires=60)
    start(sandbox)
    fresh.get(timeout=10)
    assert (lines(runs), wait_for("the old one is revoked", lambda: expired.state == "REVOKED")) == (
        ["new"],
        True,
    )


# --- without our settings ---


def test_an_app_without_a_broker_silently_takes_amqp_on_localhost() -> None:
    assert Celery(set_as_current=False).connection().as_uri() == "amqp://guest:**@localhost:5672//"
