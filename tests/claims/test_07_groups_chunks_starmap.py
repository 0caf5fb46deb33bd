"""The claims of notebook 07: many tasks at once."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import chain, chord, group
from celery.backends import base
from celery.result import AsyncResult
from kombu.exceptions import EncodeError

from celery_app import app
from lab.evidence import states, waiting
from lab.sandbox import Sandbox
from lab.wrong_tasks import sum_and_wait, sum_and_wait_by_force
from monitor import purge_queue
from tasks.advanced_tasks import (
    bulk_publish,
    mean_temperature,
    monitored_task,
    retry_fixed_delay,
    time_limited_task,
)
from tasks.basic_tasks import add
from tests.helper_tasks import mark, mark_and_wait, process_id
from tests.waiting import wait_for
from tests.workers import start

STATIONS = [mean_temperature.s(source) for source in ("north", "atlantis", "south", "west")]
PAIRS = [(number, number) for number in range(20)]


def test_group_messages(sandbox: Sandbox) -> None:
    """07.1 A group sends one message for each of its members."""
    group(add.s(*pair) for pair in PAIRS).delay()
    assert waiting("basic") == len(PAIRS)


def test_chunks_messages(sandbox: Sandbox) -> None:
    """07.2 `chunks(items, 10)` sends one message for ten items, and gives one list of results per chunk."""
    result: AsyncResult = add.chunks(PAIRS, 10).apply_async()
    assert waiting("basic") == 2
    start(sandbox)
    assert result.get(timeout=20) == [[2 * n for n in range(10)], [2 * n for n in range(10, 20)]]


def test_a_group_looks_once_and_sleeps(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """07.3 On Redis, `get()` of a group sleeps for its `interval`, half a second by default, if a result is
    missing at its first look. It does not wake when the last result comes.
    """
    result: Any = group(add.s(1, 1), add.s(2, 2)).delay()
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        """Start the worker during the first sleep, and come back when all results are there."""
        naps.append(seconds)
        if len(naps) == 1:
            start(sandbox)
            wait_for("both results", lambda: all(member.successful() for member in members))

    members: list[AsyncResult] = [
        AsyncResult(member.id) for member in result
    ]  # these do not tell `result` what they see
    monkeypatch.setattr(base, "time", SimpleNamespace(sleep=sleep))
    assert result.get(timeout=20) == [2, 4]
    assert naps == [0.5]  # the whole of it was asked for: nothing could have ended it sooner
    assert result.get(timeout=20) == [2, 4]
    assert naps == [0.5]


def test_a_failing_item(sandbox: Sandbox) -> None:
    """07.4 One failing item of a chunk costs the results of the whole chunk."""
    start(sandbox)
    result: AsyncResult = add.chunks([(1, 1), (1, "two"), (3, 3), (4, 4)], 2).apply_async()
    bad, good = result.get(timeout=20, propagate=False)
    assert isinstance(bad, ValueError)
    assert good == [6, 8]


def test_a_failed_member_stops_no_other(sandbox: Sandbox) -> None:
    """07.5 A member of a group that fails stops no other member."""
    result: Any = group(STATIONS).delay()
    start(sandbox)
    wait_for("the end of all", result.ready)
    assert states(result) == ["SUCCESS", "FAILURE", "SUCCESS", "SUCCESS"]


def test_results_have_the_order_of_the_members(sandbox: Sandbox, tmp_path: Path) -> None:
    """07.6 The results of a group come in the order of its members, and not in the order in which they
    end.
    """
    release = str(tmp_path / "release")  # the second member lets the first one end
    result: Any = group(
        mark_and_wait.s(str(tmp_path / "runs"), release), mark.s(release), add.s(1, 1)
    ).delay()
    start(sandbox)
    assert result.get(timeout=20) == ["released", None, 2]


def test_errors_of_a_group(sandbox: Sandbox) -> None:
    """07.7 `get()` of a group raises the error of a failed member. With `propagate=False`, the error stands
    in the list, and the other results too.
    """
    result: Any = group(STATIONS).delay()
    start(sandbox)
    with pytest.raises(ValueError, match="atlantis"):
        result.get(timeout=20)
    north, atlantis, south, west = result.get(timeout=20, propagate=False)
    assert isinstance(atlantis, ValueError)
    assert [north, south, west] == [mean_temperature(source) for source in ("north", "south", "west")]


def test_starmap_is_one_process(sandbox: Sandbox) -> None:
    """07.8 `starmap` runs its items one after the other, in one process."""
    start(sandbox)
    result: AsyncResult = process_id.starmap([()] * 10).apply_async()
    pids = result.get(timeout=20)
    assert (len(pids), len(set(pids))) == (10, 1)


def test_limits_and_retries(sandbox: Sandbox) -> None:
    """07.9 The task's own time limits and retries do not work for the items of `chunks` and `starmap`."""
    start(sandbox)
    slow: AsyncResult = time_limited_task.starmap([(1.2,)]).apply_async()
    slow_chunk: AsyncResult = time_limited_task.chunks([(1.2,)], 1).apply_async()
    starmap: AsyncResult = retry_fixed_delay.starmap([(1, 0.1)]).apply_async()
    chunk: AsyncResult = retry_fixed_delay.chunks([(1, 0.1)], 1).apply_async()
    assert retry_fixed_delay.delay(1, 0.1).get(timeout=20) == "the service answered at attempt 2"
    assert isinstance(starmap.get(timeout=20, propagate=False), ConnectionError)
    assert isinstance(chunk.get(timeout=20, propagate=False)[0], ConnectionError)
    assert time_limited_task.delay(1.2).get(timeout=20) == "stopped after 1 s of 1.2 s"
    assert slow.get(timeout=20) == ["finished in 1.2 s"]
    assert slow_chunk.get(timeout=20) == [["finished in 1.2 s"]]


def test_an_error_inside_a_batch(sandbox: Sandbox) -> None:
    """07.10 An error inside a batch discards the messages of the batch that are not sent yet."""
    with pytest.raises(EncodeError):
        bulk_publish(add, [(1, 1), (2, 2), (3, {3}), (4, 4)])
    assert waiting("basic") == 0
    with contextlib.suppress(KeyError), app.producer_or_acquire() as producer, producer.batch():
        add.apply_async((1, 1), producer=producer)
        raise KeyError("an error of the program")
    assert waiting("basic") == 0
    bulk_publish(add, [(1, 1), (2, 2)])
    assert waiting("basic") == 2


def test_a_batch_is_sent_in_parts(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """07.11 A batch sends what it holds after each 1000 messages: after 500 tasks, if each has its task-sent
    event.
    """
    for with_event, part in ((True, 500), (False, 1000)):
        monkeypatch.setitem(app.conf, "task_send_sent_event", with_event)
        with app.producer_or_acquire() as producer, producer.batch():
            for _ in range(part - 1):
                add.apply_async((1, 1), producer=producer)
            assert waiting("basic") == 0
            add.apply_async((1, 1), producer=producer)
            assert waiting("basic") == part
        with pytest.raises(EncodeError):
            bulk_publish(add, [*[(1, 1)] * part, (2, 2), (3, {3})])
        assert waiting("basic") == part * 2
        purge_queue("basic")


def test_a_group_of_one(sandbox: Sandbox) -> None:
    """07.12 In a chain, a group with one member passes on its value, not a list of one."""
    start(sandbox)
    flows = [
        chain(group([add.s(2, 2)]), add.s(1)),
        chain(group([add.s(2, 2)]), monitored_task.s()),
        chain(group([add.s(2, 2), add.s(3, 3)]), monitored_task.s()),
        chord([add.s(2, 2)], monitored_task.s()),
    ]
    value, error, two, explicit = [flow.delay().get(timeout=20, propagate=False) for flow in flows]
    assert value == 5
    assert "items=4: input should be a valid list" in str(error)
    assert (two["squares"], explicit["squares"]) == ([16, 36], [16])


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_get_inside_a_task(sandbox: Sandbox, pool: str) -> None:
    """07.13 `get()` inside a task raises RuntimeError."""
    start(sandbox, pool=pool)
    with pytest.raises(RuntimeError, match=r"Never call result.get\(\) within a task"):
        sum_and_wait.delay([1, 2, 3]).get(timeout=20)


def test_tasks_that_wait_for_each_other(sandbox: Sandbox) -> None:
    """07.14 Tasks that wait for their own parts block a worker when they use up its concurrency."""
    results = [sum_and_wait_by_force.delay([1, 2, 3]) for _ in range(2)]
    first = start(sandbox)
    wait_for("both have sent their parts", lambda: waiting("basic") == 6)
    assert states(results) == ["STARTED", "STARTED"]
    assert "basic_tasks.add[" not in first.log.read_text()  # no part has even been received
    start(sandbox)  # two pool children more, and everything moves again
    assert [result.get(timeout=20) for result in results] == [12, 12]
