"""The claims of notebook 09: what a retry is, what swallows it, what it is for, how long it waits."""

import re
from typing import Any

import pytest
from celery.exceptions import MaxRetriesExceededError

from lab.sandbox import Sandbox, Worker
from lab.wrong_tasks import (
    retry_after_one_second,
    retry_by_default,
    retry_everything,
    retry_without_error,
    swallow_retry,
)
from lab.xray import Unacknowledged, xray
from tasks.advanced_tasks import retry_fixed_delay
from tasks.basic_tasks import add
from tests.waiting import wait_for


def start(sandbox: Sandbox) -> Worker:
    """Start a worker with two slots that knows the wrong tasks."""
    return sandbox.start_worker(["basic", "advanced"], include=["lab.wrong_tasks"])


def received(worker: Worker, task_id: str) -> int:
    return worker.log.read_text().count(f"[{task_id}] received")


def waits_of(worker: Worker, task_id: str) -> list[float]:
    """Return the waits before the retries of a task, in seconds."""
    told = rf"\[{task_id}\] retry: Retry in ([\d.]+)s"
    return [float(seconds) for seconds in re.findall(told, worker.log.read_text())]


def wait_for_retry(result: Any) -> Unacknowledged:
    """Wait until a worker holds nothing but the retry of this task, and return it."""

    def look() -> Unacknowledged | None:
        held = xray().unacknowledged
        return held[0] if len(held) == 1 and held[0].message.headers["retries"] else None

    wait_for("the state RETRY", lambda: result.state == "RETRY")
    held = wait_for("the retry", look)
    assert held
    return held


def test_a_retry_is_a_message(sandbox: Sandbox) -> None:
    """09.1 A retry is a new message with the same task id, on the queue that the task came from."""
    result = retry_fixed_delay.apply_async((1, 60), queue="basic")
    assert retry_fixed_delay.delay(0).id != result.id  # its usual queue is another
    assert [len(xray(queue).messages) for queue in ("basic", "advanced")] == [1, 1]
    [first] = xray("basic").messages
    start(sandbox)
    retry = wait_for_retry(result).message
    assert (retry.queue, retry.id, retry.headers["retries"]) == ("basic", first.id, 1)
    assert retry.properties["delivery_tag"] != first.properties["delivery_tag"]


def test_a_retry_that_waits(sandbox: Sandbox) -> None:
    """09.2 While a retry waits, a worker holds its message unacknowledged, and no slot is occupied."""
    start(sandbox)
    waiting = [retry_fixed_delay.delay(1, 600) for _ in range(10)]
    wait_for("ten retries", lambda: all(result.state == "RETRY" for result in waiting))
    assert add.delay(1, 1).get(timeout=20) == 2
    wait_for("only the retries are held", lambda: xray().unacknowledged_total == 10)
    assert {held.message.headers["retries"] for held in xray().unacknowledged} == {1}
    assert [len(xray(queue).messages) for queue in ("basic", "advanced")] == [0, 0]


def test_max_retries_counts_retries(sandbox: Sandbox) -> None:
    """09.3 `max_retries` counts the retries: a task with `max_retries=3` runs at most four times."""
    worker = start(sandbox)
    assert retry_fixed_delay.max_retries == 3
    result = retry_fixed_delay.delay(99, 0.1)
    with pytest.raises(ConnectionError, match="attempt 4 of 99"):
        result.get(timeout=20)
    assert received(worker, result.id) == 4


def test_the_error_at_the_end(sandbox: Sandbox) -> None:
    """09.4 When its retries are used up, a task fails with the error given as `exc`; without `exc` it fails
    with MaxRetriesExceededError.
    """
    start(sandbox)
    assert isinstance(retry_fixed_delay.delay(99, 0).get(timeout=20, propagate=False), ConnectionError)
    with pytest.raises(MaxRetriesExceededError) as error:
        retry_without_error.delay(99).get(timeout=20)
    assert "away" not in str(error.value)  # what the service said


def test_a_swallowed_retry(sandbox: Sandbox) -> None:
    """09.5 `except Exception` around `self.retry()` swallows the retry: the task runs again, and keeps the
    SUCCESS and the value of its first run.
    """
    worker = start(sandbox)
    result = swallow_retry.delay(1)
    assert result.get(timeout=20) == "fallback"
    succeeded = re.compile(rf"\[{result.id}\] succeeded in .*: '(.*)'")
    wait_for("two runs", lambda: len(succeeded.findall(worker.log.read_text())) == 2)
    answers = ["fallback", "the service answered at attempt 2"]
    assert succeeded.findall(worker.log.read_text()) == answers
    assert (result.state, result.get(timeout=20)) == ("SUCCESS", "fallback")
    assert swallow_retry.AsyncResult(result.id).get(timeout=20) == "fallback"


def test_autoretry_for_exception(sandbox: Sandbox) -> None:
    """09.6 `autoretry_for=(Exception,)` retries bad data and bugs as often as a lost connection."""
    worker = start(sandbox)
    for argument, error in (("twelve", ValueError), (None, TypeError)):
        result = retry_everything.delay(argument)
        with pytest.raises(error):
            result.get(timeout=20)
        assert received(worker, result.id) == 4


def test_the_default_delay(sandbox: Sandbox) -> None:
    """09.7 Without a countdown, a retry waits for `default_retry_delay`, which is 180 seconds in Celery."""
    worker = start(sandbox)
    assert retry_by_default.default_retry_delay == 180
    slow, quick = retry_by_default.delay(1), retry_without_error.delay(0)
    assert quick.get(timeout=20) == "the service answered at attempt 1"
    wait_for("the retry", lambda: waits_of(worker, slow.id) == [180])


def test_jitter(sandbox: Sandbox) -> None:
    """09.8 With `retry_backoff`, jitter is on by default: each wait is a random whole number of seconds, from
    0 to the full wait.
    """
    worker = start(sandbox)
    results = [retry_after_one_second.delay(1) for _ in range(40)]
    wait_for("all retries", lambda: all(waits_of(worker, result.id) for result in results))
    assert {waits_of(worker, result.id)[0] for result in results} == {0, 1}


def test_copies_of_a_retry(drill_sandbox: Sandbox) -> None:
    """09.9 On Redis, a task whose wait before a retry is longer than the visibility timeout multiplies: each
    copy of the retry sends retries of its own.
    """
    worker = start(drill_sandbox)
    result = retry_fixed_delay.delay(99, 6)
    # One task that is delivered once sends three retries, and the last of its four runs fails.
    wait_for("more retries", lambda: len(waits_of(worker, result.id)) > 3, seconds=60)
