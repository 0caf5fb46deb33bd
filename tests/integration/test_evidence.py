"""The evidence is what really happened, and of the task that was asked for."""

from pathlib import Path

import pytest
from kombu.exceptions import OperationalError

from celery_app import QUEUES, app
from lab.evidence import (
    is_running,
    log_lines,
    most_at_once,
    process_names,
    received,
    retry_waits,
    started,
    states,
    unacknowledged,
    waiting,
)
from lab.runs import Run
from lab.sandbox import Sandbox
from lab.timeline import Timeline
from tasks.advanced_tasks import prioritized_task, retry_fixed_delay, retry_with_backoff
from tasks.basic_tasks import add
from tests.helper_tasks import mark_and_wait
from tests.waiting import lines, wait_for
from tests.workers import start


def test_messages_of_all_priorities_wait_on_one_queue_or_on_all(sandbox: Sandbox) -> None:
    for priority in range(10):
        prioritized_task.apply_async(args=["p"], priority=priority)
    add.delay(1, 2)
    assert (waiting("advanced"), waiting("basic"), waiting("health")) == (10, 1, 0)
    assert waiting("advanced", "basic") == waiting() == waiting(*QUEUES) == 11
    assert unacknowledged() == 0


def test_unacknowledged_messages_belong_to_their_queue(sandbox: Sandbox, tmp_path: Path) -> None:
    for queue in ("basic", "advanced", "advanced"):
        add.apply_async(args=[1, 2], queue=queue, countdown=600)
    start(sandbox)
    wait_for("a worker has taken all", lambda: unacknowledged() == 3)
    assert (unacknowledged("basic"), unacknowledged("advanced"), unacknowledged("health")) == (1, 2, 0)
    assert unacknowledged("basic", "advanced") == 3
    assert waiting() == 0


@pytest.mark.parametrize("count", [waiting, unacknowledged])
def test_a_misspelled_queue_is_refused(sandbox: Sandbox, count: object) -> None:
    assert callable(count)
    with pytest.raises(ValueError, match="queue='baisc': no such queue; use one of basic"):
        count("basic", "baisc")


def test_a_broker_that_is_away_is_named(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in ("broker_url", "broker_write_url"):
        monkeypatch.setitem(app.conf, setting, "redis+socket:///nowhere.sock?virtual_host=0")
    with pytest.raises(OperationalError, match="does not answer"):
        waiting()


def test_a_log_is_read_for_the_task_that_was_asked_for(sandbox: Sandbox) -> None:
    worker = start(sandbox)
    for task_id in ("receipt-1", "receipt-10", "receipt-1"):  # one id is the beginning of another
        retry_fixed_delay.apply_async((0,), task_id=task_id)
    wait_for("all have run", lambda: not waiting() and not unacknowledged())
    assert (received(worker, "receipt-1"), received(worker, "receipt-10")) == (2, 1)
    assert (received(worker, "receipt"), received(worker, "receipt.1")) == (0, 0)
    told = log_lines(worker, "receipt-1", times=2)
    assert [line.rpartition("] ")[2].split()[0] for line in told].count("received") == 2
    assert not any("receipt-10" in line for line in told)


def test_each_retry_is_received_and_its_wait_is_told(sandbox: Sandbox) -> None:
    worker = start(sandbox)
    result = retry_with_backoff.delay(failures=2, base_seconds=0.1)
    result.get(timeout=20)
    log_lines(worker, result.id)
    assert (received(worker, result.id), retry_waits(worker, result.id)) == (3, [0.1, 0.2])
    assert retry_waits(worker, add.delay(1, 2).id) == []


@pytest.mark.parametrize(("pool", "name"), [("prefork", "ForkPoolWorker-1"), ("threads", "MainProcess")])
def test_a_log_names_the_process_of_each_run(sandbox: Sandbox, pool: str, name: str) -> None:
    worker = start(sandbox, pool=pool, concurrency=1)
    result = retry_fixed_delay.delay(1, 0.1)
    result.get(timeout=20)
    log_lines(worker, result.id)
    assert process_names(worker, result.id) == [name] * 2


def test_a_line_that_does_not_come_is_a_loud_timeout(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = start(sandbox)
    monkeypatch.setattr("lab.evidence.wait_for", lambda what, look: wait_for(what, look, seconds=0.1))
    with pytest.raises(TimeoutError, match=r"1 x 'succeeded' for task no-such-id in .*\.log"):
        log_lines(worker, "no-such-id")


def test_runs_that_have_begun_are_counted(sandbox: Sandbox, tmp_path: Path) -> None:
    start(sandbox, concurrency=1)
    with Timeline() as timeline:
        results = [mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release")) for _ in range(2)]
        wait_for("one runs", lambda: lines(tmp_path / "runs"))
        wait_for("its event", lambda: started(timeline.runs))
        wait_for("both have been received", lambda: len(timeline.runs) == 2)
        assert started(timeline.runs) == 1
        assert states(results) == ["STARTED", "PENDING"]
        (tmp_path / "release").touch()
        for result in results:
            timeline.wait_for(result)
    assert (started(timeline.runs), most_at_once(timeline.runs)) == (2, 1)
    assert states(results) == ["SUCCESS", "SUCCESS"]


@pytest.mark.parametrize(
    ("spans", "most"),
    [
        ([], 0),
        ([(1, 2)], 1),
        ([(1, 2), (2, 3)], 1),  # one ends as the other begins
        ([(1, 5), (2, 3), (4, 6)], 2),
        ([(3, 6), (2, 5), (4, 7), (8, 9)], 3),
        ([(1, None), (1, 2)], 1),
        ([(None, None)], 0),
    ],
)
def test_most_at_once_is_the_largest_overlap(spans: list[tuple[float, float]], most: int) -> None:
    assert most_at_once(Run("id", started=begin, ended=end) for begin, end in spans) == most


def test_a_worker_runs_until_it_is_killed(sandbox: Sandbox) -> None:
    worker = start(sandbox)
    assert is_running(worker)
    worker.kill()
    assert not is_running(worker)
