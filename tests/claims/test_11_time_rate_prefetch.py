"""The claims of notebook 11: limits of time and rate, and what a worker takes from its queues."""

from pathlib import Path

import psutil
import pytest
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery.result import AsyncResult

from celery_app import app
from lab.evidence import received, states, waiting
from lab.sandbox import Sandbox
from lab.wrong_tasks import acknowledge_early, never_stop
from lab.xray import xray
from tasks.advanced_tasks import rate_limited_task, time_limited_task
from tasks.basic_tasks import add
from tests.helper_tasks import hang, mark_and_wait, process_id
from tests.waiting import lines, wait_for
from tests.workers import start

# A look at Redis by our own means. What workers take from it is what this lesson is about: its tests do not
# depend on the code with which the notebook shows it.


def counts(sandbox: Sandbox) -> tuple[int, int]:
    """Return how many messages wait on the queue basic, and how many are unacknowledged in all queues."""
    client = sandbox.broker.client()
    return int(client.llen("basic")), int(client.hlen("unacked"))


def occupy(room: Path, concurrency: int) -> list[AsyncResult]:
    """Send as many tasks that run until the file `release` exists, and wait until all run."""
    tasks = [mark_and_wait.delay(str(room / "runs"), str(room / "release")) for _ in range(concurrency)]
    wait_for("the long tasks run", lambda: len(lines(room / "runs")) == concurrency)
    return tasks


def finished(tasks: list[AsyncResult]) -> int:
    return states(tasks).count("SUCCESS")


def test_soft_and_hard_limit_on_prefork(sandbox: Sandbox, tmp_path: Path) -> None:
    """11.1 On the prefork pool, the soft time limit raises SoftTimeLimitExceeded inside the task, and the
    hard one kills the pool child.
    """
    start(sandbox, "basic", concurrency=1)
    # It writes a line when SoftTimeLimitExceeded is raised, and goes on.
    children = [process_id.delay().get(timeout=20)]
    deaf = hang.apply_async(args=[str(tmp_path / "told")], soft_time_limit=0.5, time_limit=1)
    assert isinstance(deaf.get(timeout=30, propagate=False), TimeLimitExceeded)
    assert lines(tmp_path / "told") == ["told to stop"]
    children.append(process_id.delay().get(timeout=20))
    polite = mark_and_wait.apply_async(
        args=[str(tmp_path / "runs"), str(tmp_path / "release")], soft_time_limit=0.5
    )
    assert isinstance(polite.get(timeout=30, propagate=False), SoftTimeLimitExceeded)
    children.append(process_id.delay().get(timeout=20))
    assert children[0] != children[1] == children[2]
    wait_for("the first one is gone", lambda: not psutil.pid_exists(children[0]))


def test_except_exception_swallows_the_soft_limit(sandbox: Sandbox) -> None:
    """11.2 `except Exception` in a task swallows SoftTimeLimitExceeded: the task goes on until the hard
    limit.
    """
    start(sandbox, "basic", concurrency=1)
    result = never_stop.apply_async(soft_time_limit=0.5, time_limit=1.5)
    assert isinstance(result.get(timeout=30, propagate=False), TimeLimitExceeded)


def test_the_hard_limit_is_the_end(sandbox: Sandbox, tmp_path: Path) -> None:
    """11.3 A late-acknowledged task that the hard time limit ends is acknowledged all the same: it fails, and
    is not delivered again.
    """
    worker = start(sandbox, "basic", concurrency=1)
    assert hang.acks_late
    result = hang.apply_async(args=[str(tmp_path / "told")], soft_time_limit=0.5, time_limit=1)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=30)
    wait_for("the acknowledgement", lambda: counts(sandbox) == (0, 0))
    assert (result.state, received(worker, result.id)) == ("FAILURE", 1)


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_pools_without_limits(sandbox: Sandbox, pool: str) -> None:
    """11.4 The threads and solo pools ignore both time limits."""
    start(sandbox, "advanced", concurrency=1, pool=pool)
    soft = time_limited_task.apply_async(args=[1.2], soft_time_limit=0.3, time_limit=60)
    hard = time_limited_task.apply_async(args=[1.2], soft_time_limit=0.3, time_limit=0.6)
    assert [result.get(timeout=15) for result in (soft, hard)] == ["finished in 1.2 s"] * 2


def test_the_callers_limits_win(sandbox: Sandbox) -> None:
    """11.5 Time limits that the caller gives win over those of the task."""
    start(sandbox)
    assert (never_stop.soft_time_limit, never_stop.time_limit) == (1, 2)
    for soft, hard in ((0.5, 1), (2, 3)):  # shorter ones and longer ones
        with pytest.raises(TimeLimitExceeded) as error:
            never_stop.apply_async(soft_time_limit=soft, time_limit=hard).get(timeout=30)
        assert error.value.args == (hard,)
    assert time_limited_task.soft_time_limit == 1
    longer = time_limited_task.apply_async(args=[1.5], soft_time_limit=60)
    assert longer.get(timeout=15) == "finished in 1.5 s"
    shorter = time_limited_task.apply_async(args=[0.8], soft_time_limit=0.3)
    assert shorter.get(timeout=15).startswith("stopped")


def test_the_limits_travel_in_the_message(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """11.6 A message carries the time limits that its sender's program knows, and they win over those of
    the worker's program.
    """
    monkeypatch.setattr(time_limited_task, "soft_time_limit", 4)  # here, and not in the worker
    monkeypatch.setattr(time_limited_task, "_exec_options", None)  # a copy that a call before has made
    result = time_limited_task.delay(1.5)
    assert xray("advanced").messages[0].headers["timelimit"] == [time_limited_task.time_limit, 4]
    start(sandbox, "advanced", concurrency=1)
    assert result.get(timeout=15) == "finished in 1.5 s"
    monkeypatch.undo()
    assert time_limited_task.delay(1.5).get(timeout=15) == "stopped after 1 s of 1.5 s"


def test_a_hard_limit_below_the_soft_one(sandbox: Sandbox, tmp_path: Path) -> None:
    """11.7 A hard time limit below the soft one does not fire before the soft one."""
    start(sandbox, "basic")
    below = hang.apply_async(args=[str(tmp_path / "a")], soft_time_limit=60, time_limit=0.5)
    wait_for("it runs", lambda: below.state == "STARTED")
    above = hang.apply_async(args=[str(tmp_path / "b")], soft_time_limit=1, time_limit=1.5)
    assert isinstance(above.get(timeout=30, propagate=False), TimeLimitExceeded)
    # It began before the other, has the smaller limit, and runs on.
    assert below.state == "STARTED"


def test_a_rate_limit_counts_per_worker(sandbox: Sandbox) -> None:
    """11.8 A rate limit counts per worker: two workers start twice as many."""
    queues = ("basic", "advanced")
    for queue in queues:
        start(sandbox, queue)
    answers = app.control.rate_limit(rate_limited_task.name, "1/h", reply=True, limit=2, timeout=10)
    assert len(answers or ()) == 2
    tasks = {
        queue: [rate_limited_task.apply_async(args=[number], queue=queue) for number in range(3)]
        for queue in queues
    }
    wait_for("each worker holds the two others", lambda: counts(sandbox) == (0, 4))
    wait_for("two have run", lambda: sum(map(finished, tasks.values())) == 2)
    assert [finished(tasks[queue]) for queue in queues] == [1, 1]


def test_a_rate_limit_by_remote_control(sandbox: Sandbox) -> None:
    """11.9 A rate limit that is set by remote control is unknown to workers that start later."""
    start(sandbox, "basic", concurrency=1)
    app.control.rate_limit(rate_limited_task.name, "6/m", reply=True, limit=1, timeout=10)
    start(sandbox, "basic", concurrency=1)
    answers = app.control.inspect(timeout=10, limit=2).registered("rate_limit") or {}
    told = [line for tasks in answers.values() for line in tasks if rate_limited_task.name in line]
    assert sorted(line.partition(" ")[2] for line in told) == ["[rate_limit=5/s]", "[rate_limit=6/m]"]


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_busy_worker_hoards(sandbox: Sandbox, tmp_path: Path, concurrency: int) -> None:
    """11.10 With a prefetch multiplier of 4, a busy worker holds four times as many unacknowledged messages
    as its concurrency, and an idle worker beside it does not get them.
    """
    start(sandbox, "basic", concurrency=concurrency, options=["--prefetch-multiplier", "4"])
    long = occupy(tmp_path, concurrency)
    hoarded = 3 * concurrency
    short = [add.delay(number, 1) for number in range(hoarded + 3)]
    wait_for("the busy worker is full", lambda: counts(sandbox) == (3, 4 * concurrency))
    start(sandbox, "basic", concurrency=1)
    wait_for("the idle worker has done what it got", lambda: finished(short) == 3)
    wait_for("the busy worker has the others", lambda: counts(sandbox) == (0, 4 * concurrency))
    assert (finished(short), states(long)) == (3, ["STARTED"] * concurrency)
    (tmp_path / "release").touch()
    assert [task.get(timeout=10) for task in short] == list(range(1, hoarded + 4))


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_multiplier_of_one_with_late_acknowledgement(
    sandbox: Sandbox, tmp_path: Path, concurrency: int
) -> None:
    """11.11 With late acknowledgement and a prefetch multiplier of 1, a worker holds only the messages that
    it runs.
    """
    start(sandbox, "basic", concurrency=concurrency, options=["--prefetch-multiplier", "1"])
    long = occupy(tmp_path, concurrency)
    short = [add.delay(number, 1) for number in range(6)]
    start(sandbox, "basic", concurrency=1)
    wait_for("the idle worker has done all of them", lambda: finished(short) == 6)
    wait_for("only the long ones are unacknowledged", lambda: counts(sandbox) == (0, concurrency))
    assert states(long) == ["STARTED"] * concurrency
    (tmp_path / "release").touch()


def test_a_multiplier_of_one_with_early_acknowledgement(sandbox: Sandbox) -> None:
    """11.12 With early acknowledgement and a prefetch multiplier of 1, one more message waits in the worker
    behind each running one.
    """
    start(sandbox, "basic", options=["--prefetch-multiplier", "1"])
    long = [acknowledge_early.delay() for _ in range(2)]
    wait_for("both run", lambda: states(long) == ["STARTED", "STARTED"])
    wait_for("nothing is unacknowledged", lambda: counts(sandbox) == (0, 0))
    short = [add.delay(number, 1) for number in range(6)]
    wait_for("the busy worker holds two", lambda: counts(sandbox) == (4, 2))
    start(sandbox, "basic", concurrency=1)
    wait_for("the idle worker has done all of the others", lambda: finished(short) == 4)
    wait_for("the busy worker has two", lambda: counts(sandbox) == (0, 2))
    assert finished(short) == 4


def test_delayed_tasks_ignore_prefetch(sandbox: Sandbox) -> None:
    """11.13 Tasks with a countdown or an ETA do not count against the prefetch limit: one free worker takes
    them all.
    """
    for _ in range(100):
        add.apply_async(args=[1, 2], countdown=3600)
    start(sandbox, "basic", concurrency=1, options=["--prefetch-multiplier", "1"])
    wait_for("it has taken them all", lambda: counts(sandbox) == (0, 100))
    assert add.delay(1, 2).get(timeout=10) == 3  # and there is room for others


def test_a_limit_for_delayed_tasks_stops_all_others(sandbox: Sandbox) -> None:
    """11.14 When a worker has reached `worker_eta_task_limit`, it takes no other task from its queues
    either.
    """
    start(sandbox, "basic", "advanced", options=["worker_eta_task_limit=10"])
    for _ in range(10):
        add.apply_async(args=[1, 2], countdown=3600)
    wait_for("it has reached the limit", lambda: counts(sandbox) == (0, 10))
    plain = [add.apply_async(args=[1, 2], queue=queue) for queue in ("basic", "advanced")]
    start(sandbox, "health", concurrency=1)
    # Time enough for a worker that would take them.
    time_limited_task.apply_async(args=[0.5], queue="health").get(timeout=10)
    assert states(plain) == ["PENDING", "PENDING"]
    assert (waiting("basic"), waiting("advanced")) == (1, 1)
