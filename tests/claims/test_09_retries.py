"""The claims of notebook 09: what a retry is, what swallows it, what it is for, how long it waits."""

from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import MaxRetriesExceededError

from lab.evidence import log_lines, received, retry_waits, states, unacknowledged, waiting
from lab.sandbox import Sandbox
from lab.wrong_tasks import (
    retry_after_one_second,
    retry_by_default,
    retry_everything,
    retry_without_error,
    swallow_retry,
)
from lab.xray import Unacknowledged, xray
from tasks.advanced_tasks import retry_fixed_delay
from tests.helper_tasks import mark_and_wait
from tests.waiting import lines, wait_for
from tests.workers import start


def wait_for_retry(result: Any) -> Unacknowledged:
    """Wait until nothing is unacknowledged but the retry of this task, and return it."""

    def look() -> Unacknowledged | None:
        taken = xray().unacknowledged
        return taken[0] if len(taken) == 1 and taken[0].message.headers["retries"] else None

    wait_for("the state RETRY", lambda: result.state == "RETRY")
    retry = wait_for("the retry", look)
    assert retry
    return retry


def test_a_retry_is_a_message(sandbox: Sandbox) -> None:
    """09.1 A retry is a new message with the same task id, on the queue that the task came from."""
    result = retry_fixed_delay.apply_async((1, 60), queue="basic")
    assert retry_fixed_delay.delay(0).id != result.id  # its usual queue is another
    assert [waiting("basic"), waiting("advanced")] == [1, 1]
    [first] = xray("basic").messages
    start(sandbox)
    retry = wait_for_retry(result).message
    assert (retry.queue, retry.id, retry.headers["retries"]) == ("basic", first.id, 1)
    assert retry.properties["delivery_tag"] != first.properties["delivery_tag"]


def test_a_retry_that_waits(sandbox: Sandbox, tmp_path: Path) -> None:
    """09.2 While a retry waits, a worker holds its message unacknowledged, and its whole concurrency is free
    for other tasks.
    """
    start(sandbox, concurrency=2)
    results = [retry_fixed_delay.delay(1, 600) for _ in range(10)]
    wait_for("ten retries", lambda: states(results) == ["RETRY"] * 10)
    runs, release = tmp_path / "runs", tmp_path / "release"
    others = [mark_and_wait.delay(str(runs), str(release)) for _ in range(2)]
    wait_for("two others run at once", lambda: len(set(lines(runs))) == 2)
    release.touch()
    assert [result.get(timeout=20) for result in others] == ["released"] * 2
    wait_for("only the retries are left", lambda: unacknowledged() == 10)
    assert {taken.message.headers["retries"] for taken in xray().unacknowledged} == {1}
    assert waiting() == 0


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
    ended = [line for line in log_lines(worker, result.id, times=2) if "succeeded" in line]
    answers = ["'fallback'", "'the service answered at attempt 2'"]
    assert [line.rpartition("s: ")[2] for line in ended] == answers
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
    wait_for("the retry", lambda: retry_waits(worker, slow.id) == [180])


def test_jitter(sandbox: Sandbox) -> None:
    """09.8 With `retry_backoff`, jitter is on by default: each wait is a random whole number of seconds, from
    0 to the full wait.
    """
    worker = start(sandbox)
    results = [retry_after_one_second.delay(3) for _ in range(60)]
    # Not by their states: after a wait of 0 s, the RETRY may be stored after the SUCCESS that follows.
    wait_for("all answers", lambda: worker.log.read_text().count("] succeeded in") == 60, seconds=60)
    waits = [retry_waits(worker, result.id) for result in results]
    for retry, full in enumerate((1, 2, 4)):  # that one of them is missing happens once in 100,000 times
        assert {wait[retry] for wait in waits} == set(range(full + 1))


def test_copies_of_a_retry(drill_sandbox: Sandbox) -> None:
    """09.9 On Redis, a task whose wait before a retry is longer than the visibility timeout multiplies: each
    copy of the retry sends retries of its own.
    """
    worker = start(drill_sandbox)
    long, short = retry_fixed_delay.delay(99, 6), retry_fixed_delay.delay(99, 0.1)
    # One task that is delivered once sends three retries, and the last of its four runs fails.
    wait_for("more retries", lambda: len(retry_waits(worker, long.id)) > 3, seconds=60)
    assert len(retry_waits(worker, short.id)) == 3
