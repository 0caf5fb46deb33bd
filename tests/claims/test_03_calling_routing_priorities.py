"""What notebook 03 claims about calling, routing and priorities, on real processes."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.exceptions import QueueNotFound
from celery.result import AsyncResult

from celery_app import QUEUES
from lab.evidence import states, unacknowledged, waiting
from lab.sandbox import Sandbox
from lab.xray import xray
from monitor import get_queue_length, get_worker_stats, purge_queue
from tasks.advanced_tasks import prioritized_task
from tasks.basic_tasks import add, greet, simple_calculation
from tests.helper_tasks import mark, mark_and_wait
from tests.waiting import lines, wait_for
from tests.workers import start

PRIORITIES = (0, 1, 2, 3, 4, 6, 9)


def default_app(sandbox: Sandbox, **transport_options: Any) -> Celery:
    """Return an app with Celery's defaults, on the sandbox's broker."""
    app = Celery(
        "default", broker=sandbox.broker.url, backend=sandbox.broker.result_backend, set_as_current=False
    )
    app.conf.broker_transport_options = transport_options
    return app


def transport(**options: Any) -> list[str]:
    """Return what makes a worker use these transport options, and no others."""
    return [f"broker_transport_options=(dict){json.dumps(options)}"]


def order(sent: list[AsyncResult]) -> list[str]:
    """Return the labels of prioritized tasks in the order in which they started."""
    values = [result.get(timeout=20) for result in sent]
    return [value["label"] for value in sorted(values, key=lambda value: value["started"])]


def send_by(app: Celery, *priorities: int) -> list[AsyncResult]:
    """Send one prioritized task for each priority, from an app of its own."""
    return [
        app.send_task(prioritized_task.name, args=[f"p{number}"], priority=number, queue="advanced")
        for number in priorities
    ]


def send_three_each(**priorities: int) -> list[AsyncResult]:
    """Send three tasks to each queue. `priorities`: of queues, where they are not 0."""
    return [
        prioritized_task.apply_async(
            args=[f"{queue} {number}"], queue=queue, priority=priorities.get(queue, 0)
        )
        for queue in ("basic", "advanced")
        for number in (1, 2, 3)
    ]


def eta_of(sent: AsyncResult) -> datetime:
    """Return the ETA of a task that waits."""
    [eta] = [message.headers["eta"] for message in xray().messages if message.id == sent.id]
    return datetime.fromisoformat(eta)


@pytest.mark.parametrize("profile", ["reliable", "fast"])  # late and early acknowledgement
def test_a_worker_holds_a_task_with_a_countdown(sandbox: Sandbox, tmp_path: Path, profile: str) -> None:
    """03.1 A free worker takes a task with a countdown at once, and holds it unacknowledged until its time
    has come; a busy one leaves it on the queue.
    """
    one = ["--prefetch-multiplier", "1"]
    free = start(sandbox, "basic", concurrency=1, profile=profile, options=one)
    add.apply_async(args=[1, 2], countdown=600)
    wait_for("the worker takes it", lambda: unacknowledged("basic") == 1)
    assert waiting("basic") == 0
    mark.apply_async(args=[str(tmp_path / "soon")], countdown=0.1)
    wait_for("its time has come", lambda: lines(tmp_path / "soon"))
    wait_for("only the other is left", lambda: unacknowledged("basic") == 1)
    free.kill()

    start(sandbox, "advanced", concurrency=1, profile=profile, options=one)
    marks = [str(tmp_path / name) for name in ("runs", "release")]
    for _ in range(2):  # with early acknowledgement one more waits behind the one that runs
        mark_and_wait.apply_async(args=marks, queue="advanced")
    wait_for("it is busy", lambda: lines(tmp_path / "runs"))
    wait_for("and full", lambda: unacknowledged("advanced") == 1)
    later = mark.apply_async(args=[str(tmp_path / "later")], queue="advanced", countdown=0.1)
    wait_for("its time has come", lambda: datetime.now(UTC) > eta_of(later))
    assert xray("advanced").messages[-1].id == later.id
    (tmp_path / "release").touch()
    wait_for("it runs when the worker is free", lambda: lines(tmp_path / "later"))


def test_llen_and_purge_do_not_reach_a_task_with_a_countdown(sandbox: Sandbox) -> None:
    """03.2 Neither `LLEN` nor `purge` reaches a task with a countdown that a worker holds."""
    worker = start(sandbox, "basic", concurrency=1)
    add.apply_async(args=[1, 2], countdown=600)
    wait_for("the worker takes it", lambda: unacknowledged("basic") == 1)
    assert (sandbox.broker.client().llen("basic"), purge_queue("basic")) == (0, 0)
    worker.kill()
    assert unacknowledged("basic") == 1


def test_an_expired_message_stays_until_a_worker_takes_it(sandbox: Sandbox) -> None:
    """03.3 A message whose `expires` has passed stays on the queue; the worker that takes it does not run
    it, and the state becomes REVOKED.
    """
    end = datetime.now(UTC) + timedelta(seconds=0.2)
    result = greet.apply_async(args=["Ada"], expires=end)
    wait_for("the end of its time", lambda: datetime.now(UTC) > end)
    assert (waiting("basic"), result.state) == (1, "PENDING")
    worker = start(sandbox, "basic", concurrency=1)
    wait_for("it is revoked", lambda: result.state == "REVOKED")
    assert f"{result.id}] succeeded" not in worker.log.read_text()
    wait_for("it is gone", lambda: unacknowledged("basic") == 0)


@pytest.mark.parametrize("timezone", ["UTC", "Asia/Shanghai", "America/New_York"])
def test_a_countdown_travels_as_a_moment(sandbox: Sandbox, timezone: str) -> None:
    """03.4 A countdown travels as `eta`: a moment with its offset from UTC, computed by the clock of the
    caller.
    """
    caller = default_app(sandbox)
    caller.conf.update(timezone=timezone)
    before = datetime.now(UTC)
    sent = caller.send_task(add.name, args=[1, 2], queue="basic", countdown=60)
    after = datetime.now(UTC)
    minute = timedelta(seconds=60)
    assert before + minute <= eta_of(sent) <= after + minute
    assert eta_of(sent).utcoffset() == before.astimezone(ZoneInfo(timezone)).utcoffset()


def test_a_negative_countdown_means_now(sandbox: Sandbox) -> None:
    """03.5 Celery takes a negative countdown for "now"; the app of this repository refuses it."""
    start(sandbox, "basic", concurrency=1)
    result = default_app(sandbox).send_task(add.name, args=[1, 2], countdown=-600, queue="basic")
    assert result.get(timeout=10) == 3
    past = datetime.now(UTC) - timedelta(seconds=600)
    assert add.apply_async(args=[1, 2], eta=past).get(timeout=10) == 3
    with pytest.raises(ValueError, match="countdown=-600"):
        add.apply_async(args=[1, 2], countdown=-600)


def test_a_misspelled_queue(sandbox: Sandbox) -> None:
    """03.6 By default a misspelled queue is created; with `task_create_missing_queues=False` the call raises
    QueueNotFound.
    """
    default_app(sandbox).send_task(add.name, args=[1, 2], queue="baisc")
    assert sandbox.broker.client().llen("baisc") == 1
    with pytest.raises(QueueNotFound, match="baisc"):
        add.apply_async(args=[1, 2], queue="baisc")
    assert sandbox.broker.client().llen("baisc") == 1


def test_a_queue_that_no_worker_serves(sandbox: Sandbox) -> None:
    """03.7 A message on a queue that no worker serves waits, PENDING and without an error."""
    start(sandbox, "basic", concurrency=1)
    result = add.apply_async(args=[1, 2], queue="realworld")
    assert add.delay(3, 4).get(timeout=10) == 7  # the worker works
    assert (waiting("realworld"), result.state) == (1, "PENDING")
    start(sandbox, "realworld", concurrency=1)
    assert result.get(timeout=10) == 3


def test_a_pattern_misses_an_explicit_name(sandbox: Sandbox) -> None:
    """03.8 A route by the pattern `tasks.basic_tasks.*` misses a task with an explicit name, and its message
    goes to the default queue.
    """
    app = default_app(sandbox)
    app.conf.task_routes = {"tasks.basic_tasks.*": {"queue": "basic"}}
    app.send_task(add.name, args=[1, 2])
    app.send_task(simple_calculation.name, args=[1, 2, "add"])
    broker = sandbox.broker.client()
    assert (broker.llen("basic"), broker.llen("celery"), "celery" in QUEUES) == (1, 1, False)
    simple_calculation.delay(1, 2, "add")  # our route, by module
    assert (broker.llen("basic"), broker.llen("celery")) == (2, 1)


def test_zero_is_first_and_the_same_as_two(sandbox: Sandbox) -> None:
    """03.9 On Redis, priority 0 is served first, and by default 0, 1 and 2 are the same."""
    sent = send_by(default_app(sandbox), 9, 3, 1, 2, 0)
    worker = start(sandbox, "advanced", concurrency=1, options=transport(priority_steps=[0, 3, 6, 9]))
    assert order(sent) == ["p1", "p2", "p0", "p3", "p9"]  # the first three as they were sent
    worker.kill()

    ours = [prioritized_task.apply_async(args=[f"p{number}"], priority=number) for number in (9, 2, 1, 0)]
    start(sandbox, "advanced", concurrency=1)
    assert order(ours) == ["p0", "p1", "p2", "p9"]


def test_different_steps_or_separators_strand_messages(sandbox: Sandbox) -> None:
    """03.10 When sender and worker have different `priority_steps` or `sep`, messages stay in lists that the
    worker does not read.
    """
    ours = [prioritized_task.apply_async(args=[f"p{number}"], priority=number) for number in PRIORITIES]
    worker = start(sandbox, "advanced", concurrency=1, options=transport(priority_steps=[0, 3, 6, 9]))
    ours[-1].get(timeout=10)  # served last of those that are served
    assert get_queue_length("advanced")["by_priority"] == {1: 1, 2: 1, 4: 1}
    worker.kill()

    theirs = send_by(default_app(sandbox, priority_steps=list(range(10)), sep=":"), *PRIORITIES)
    start(sandbox, "advanced", concurrency=1)
    assert order([*ours, theirs[0]])[-3:] == ["p1", "p2", "p4"]
    assert states(theirs) == ["SUCCESS", *["PENDING"] * 6]


def test_a_priority_does_not_stop_a_task_that_runs(sandbox: Sandbox, tmp_path: Path) -> None:
    """03.11 A priority decides which message is taken next: it does not stop a task that runs."""
    runs, release = tmp_path / "runs", tmp_path / "release"
    start(sandbox, "basic", concurrency=1)
    low = mark_and_wait.apply_async(args=[str(runs), str(release)], priority=9)
    wait_for("it runs", lambda: lines(runs))
    sent = [
        prioritized_task.apply_async(args=[f"p{number}"], priority=number, queue="basic") for number in (5, 0)
    ]
    assert [stats["active"] for stats in get_worker_stats().values()] == [1]
    assert states([*sent, low]) == ["PENDING", "PENDING", "STARTED"]
    release.touch()
    assert (order(sent), low.get(timeout=10), len(lines(runs))) == (["p0", "p5"], "released", 1)


@pytest.mark.parametrize("queues", [("basic", "advanced"), ("advanced", "basic")])
def test_queues_are_taken_in_turn(sandbox: Sandbox, queues: tuple[str, str]) -> None:
    """03.12 A worker with `--queues high,low` does not serve `high` first: it takes messages of the same
    priority from both in turn.
    """
    sent = send_three_each()
    worker = start(sandbox, *queues, concurrency=1)
    assert order(sent) == [f"{queue} {number}" for number in (1, 2, 3) for queue in queues]
    worker.kill()

    sent = send_three_each(**{queues[0]: 9})
    start(sandbox, *queues, concurrency=1)
    assert order(sent) == [f"{queue} {number}" for queue in reversed(queues) for number in (1, 2, 3)]


@pytest.mark.parametrize("queues", [("basic", "advanced"), ("advanced", "basic")])
def test_queues_in_order(sandbox: Sandbox, queues: tuple[str, str]) -> None:
    """03.13 With `"queue_order_strategy": "priority"` a worker serves its first queue as long as a message of
    the same priority waits there; a better priority in another queue still comes first.
    """
    sent = send_three_each()
    in_order = transport(priority_steps=list(range(10)), queue_order_strategy="priority")
    worker = start(sandbox, *queues, concurrency=1, options=in_order)
    assert order(sent) == [f"{queue} {number}" for queue in queues for number in (1, 2, 3)]
    worker.kill()

    sent = send_three_each(**{queues[0]: 9})
    start(sandbox, *queues, concurrency=1, options=in_order)
    assert order(sent) == [f"{queue} {number}" for queue in reversed(queues) for number in (1, 2, 3)]


def test_a_queue_alone_keeps_no_work_apart(sandbox: Sandbox, tmp_path: Path) -> None:
    """03.14 While tasks of one queue use up the concurrency of a worker, a task of its other queues waits; a
    worker of its own would run it at once.
    """
    runs, release = tmp_path / "runs", tmp_path / "release"
    start(sandbox, "basic", "advanced", concurrency=1)
    long = mark_and_wait.apply_async(args=[str(runs), str(release)], queue="advanced")
    wait_for("it runs", lambda: lines(runs))
    short = add.delay(1, 2)
    assert [stats["active"] for stats in get_worker_stats().values()] == [1]
    assert (short.state, waiting("basic")) == ("PENDING", 1)
    start(sandbox, "basic", concurrency=1)
    assert (short.get(timeout=10), long.state) == (3, "STARTED")
    release.touch()
    assert long.get(timeout=10) == "released"
