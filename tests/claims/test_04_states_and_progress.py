"""The claims of notebook 04: states that tasks set, and results that stay."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult
from celery.utils.serialization import UnpickleableExceptionWrapper

from celery_app import app
from lab.evidence import log_lines, states
from lab.sandbox import Sandbox
from lab.wrong_tasks import fail_by_hand, succeed_too_early
from settings import RESULT_DATABASE
from tasks.basic_tasks import add, logged_task, simple_calculation, task_with_progress
from tests.helper_tasks import ERRORS, fail_with, mark_and_wait
from tests.waiting import lines, wait_for
from tests.workers import start


@pytest.fixture(autouse=True)
def worker(sandbox: Sandbox) -> None:
    start(sandbox)


@pytest.fixture
def results(sandbox: Sandbox) -> redis.Redis:
    return sandbox.broker.client(RESULT_DATABASE)


def key(result: AsyncResult) -> str:
    return f"celery-task-meta-{result.id}"


def test_a_state_of_ones_own_is_not_final(sandbox: Sandbox, results: redis.Redis) -> None:
    """04.1 A state with a name of your own replaces the one before, and `get()` goes on waiting."""
    sandbox.worker.freeze()
    result = task_with_progress.delay(total=3, seconds_per_item=0.05)
    heard: list[dict[str, Any]] = []  # of all tasks that this process has sent
    # get() waits before the worker goes on, so it misses no state.
    value = result.get(timeout=20, on_message=heard.append, on_interval=sandbox.worker.thaw)
    told = [stored["status"] for stored in heard if stored["task_id"] == result.id]
    assert value == {"total": 3, "status": "done"}
    assert told == ["STARTED", "PROGRESS", "PROGRESS", "PROGRESS", "SUCCESS"]
    assert json.loads(results.get(key(result)) or "")["result"] == value
    assert len(results.keys("*")) == 1


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery, in this process
def test_get_returns_at_the_first_success(sandbox: Sandbox, tmp_path: Path) -> None:
    """04.2 `get()` returns at the first SUCCESS, even if the task goes on."""
    runs, release = tmp_path / "runs", tmp_path / "release"
    result = mark_and_wait.delay(str(runs), str(release))
    wait_for("it runs", lambda: lines(runs))
    app.backend.store_result(result.id, {"rows": 3}, "SUCCESS")  # what update_state calls
    assert result.get(timeout=10) == {"rows": 3}
    assert f"{result.id}] succeeded" not in sandbox.worker.log.read_text()
    release.touch()
    assert "'released'" in log_lines(sandbox.worker, result.id)[-1]


def test_success_by_hand_wins(sandbox: Sandbox) -> None:
    """04.3 A SUCCESS that a task sets by hand is never replaced, neither by its return value nor by its
    error."""
    good, bad = succeed_too_early.delay(["1", "2", "3"]), succeed_too_early.delay(["1", "two"])
    assert "succeeded in" in log_lines(sandbox.worker, good.id)[-1]
    assert "ValueError" in log_lines(sandbox.worker, bad.id, until="raised")[-1]
    assert (good.state, good.get(timeout=10)) == ("SUCCESS", {"rows": 3})
    assert (bad.state, bad.get(timeout=10)) == ("SUCCESS", {"rows": 2})


def test_failure_by_hand_cannot_be_read(results: redis.Redis, tmp_path: Path) -> None:
    """04.4 After a FAILURE set by hand with a dictionary, reading the state raises `ValueError`, and so does
    a `get()` with which its sender waits for another task."""
    result = fail_by_hand.delay("no rows")
    wait_for("the state is stored", lambda: b"FAILURE" in (results.get(key(result)) or b""))
    with pytest.raises(ValueError, match="must include the exception type"):
        _ = result.state
    innocent = mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
    with pytest.raises(ValueError, match="must include the exception type"):
        innocent.get(timeout=10)
    (tmp_path / "release").touch()
    assert innocent.get(timeout=10) == "released"
    result.forget()


def test_an_exception_is_made_anew(sandbox: Sandbox) -> None:
    """04.12 `get()` makes an exception anew from its class and its `args`: where they do not fit, it raises
    UnpickleableExceptionWrapper, and an `except` with the class does not catch it.
    """
    fitting = fail_with.delay("ReadingTooHigh", "north", 99.5).get(timeout=10, propagate=False)
    assert (type(fitting), fitting.args) == (ERRORS["ReadingTooHigh"], ("north", 99.5))
    refused = fail_with.delay("ReadingRefused", "north", 99.5)
    assert not issubclass(UnpickleableExceptionWrapper, ERRORS["ReadingRefused"])
    with pytest.raises(UnpickleableExceptionWrapper, match=r"ReadingRefused\('north: 99\.5'\)"):
        refused.get(timeout=10)
    assert refused.state == "FAILURE"


def test_a_result_stays_until_it_is_forgotten(results: redis.Redis) -> None:
    """04.5 `get()` leaves a result in the result backend, until it expires or `forget()` deletes it."""
    result = add.delay(1, 2)
    assert [result.get(timeout=10), result.get(timeout=10)] == [3, 3]
    assert results.ttl(key(result)) > 0
    result.forget()
    assert not results.exists(key(result))


def test_arguments_are_readable(results: redis.Redis) -> None:
    """04.6 With `result_extended` the arguments of a task lie readable beside its result."""
    result = logged_task.delay("my secret")
    result.get(timeout=10)
    assert app.conf.result_extended
    assert json.loads(results.get(key(result)) or "")["args"] == ["my secret"]


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery, in this process
def test_how_long_results_live(sandbox: Sandbox, results: redis.Redis) -> None:
    """04.7 A result lives as long as `result_expires` says, by default one day, and a failure as long as
    `result_failure_expires`, or if that is not set, as long as a result.
    """
    sandbox.worker.kill()
    sandbox.start_worker(["basic"], options=["result_expires=1000", "result_failure_expires=2000"])
    good, bad = (simple_calculation.delay(2, 8, operation) for operation in ("multiply", "power"))
    for result in (good, bad):
        result.get(timeout=10, propagate=False)
    assert 0 < results.ttl(key(good)) <= 1000 < results.ttl(key(bad)) <= 2000

    day = 24 * 60 * 60
    for changes, seconds in (({}, day), ({"result_expires": 5000}, 5000)):
        default = Celery("default", backend=sandbox.broker.result_backend, set_as_current=False)
        default.conf.update(changes)
        backend: Any = default.backend
        for name, value, state in (("good", 16, "SUCCESS"), ("bad", ValueError("power"), "FAILURE")):
            backend.delete(f"celery-task-meta-{name}")
            backend.store_result(name, value, state)
            assert seconds - 600 < results.ttl(f"celery-task-meta-{name}") <= seconds


def test_an_expired_result_is_pending(results: redis.Redis) -> None:
    """04.8 After its result has expired, a finished task reads PENDING again."""
    result = add.delay(1, 2)
    result.get(timeout=10)
    results.pexpire(key(result), 1)
    wait_for("it has expired", lambda: not results.exists(key(result)))
    assert app.AsyncResult(result.id).state == "PENDING"
    assert result.state == "SUCCESS"  # it has seen the end


def test_an_ignored_result_is_not_stored(sandbox: Sandbox, results: redis.Redis) -> None:
    """04.9 With `ignore_result=True` nothing is stored, neither a result nor a failure."""
    good = simple_calculation.apply_async(args=[2, 8, "multiply"], ignore_result=True)
    bad = simple_calculation.apply_async(args=[2, 8, "power"], ignore_result=True)
    log_lines(sandbox.worker, good.id)
    log_lines(sandbox.worker, bad.id, until="raised")
    add.delay(1, 1).get(timeout=10)  # what the worker would store of them, it has stored by now
    assert not results.exists(key(good), key(bad))
    assert states([good, bad]) == ["PENDING", "PENDING"]


def test_failures_may_be_stored_although_results_are_ignored(sandbox: Sandbox, results: redis.Redis) -> None:
    """04.10 With the setting `task_store_errors_even_if_ignored`, a failure is stored although its result is
    ignored."""
    sandbox.worker.kill()
    sandbox.start_worker(["basic"], options=["task_store_errors_even_if_ignored=true"])
    good = simple_calculation.apply_async(args=[2, 8, "multiply"], ignore_result=True)
    bad = simple_calculation.apply_async(args=[2, 8, "power"], ignore_result=True)
    log_lines(sandbox.worker, good.id)
    wait_for("the failure is stored", lambda: bad.state == "FAILURE")
    assert not results.exists(key(good))


def test_without_a_backend_there_is_no_state(sandbox: Sandbox) -> None:
    """04.11 Without a result backend a task runs, but `state` raises `AttributeError` and `get()` raises
    `NotImplementedError`."""
    bare = Celery("no-backend", broker=sandbox.broker.url, set_as_current=False)
    result = bare.send_task("tasks.basic_tasks.add", [4, 5], queue="basic")
    assert "succeeded" in log_lines(sandbox.worker, result.id)[-1]
    with pytest.raises(AttributeError, match="DisabledBackend"):
        _ = result.state
    with pytest.raises(NotImplementedError, match="No result backend"):
        result.get(timeout=10)
