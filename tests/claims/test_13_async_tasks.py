"""The claims of notebook 13: what Celery does with `async def`, and what the base class AsyncTask does."""

import itertools

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from kombu.exceptions import EncodeError

from lab.evidence import log_lines
from lab.sandbox import Sandbox
from lab.wrong_tasks import (
    count_by_asyncio_run,
    count_on_the_loop,
    count_unawaited,
    greet_unawaited,
    wait_on_the_loop,
)
from settings import RESULT_DATABASE
from tests.workers import start


def test_celery_does_not_await(sandbox: Sandbox) -> None:
    """13.1 Celery does not await a plain `async def` task: with a JSON result backend, it fails with
    EncodeError.
    """
    start(sandbox, concurrency=1)
    with pytest.raises(EncodeError, match="coroutine is not JSON serializable"):
        greet_unawaited.delay("Ada").get(timeout=10)


def test_it_succeeds_without_having_run(sandbox: Sandbox) -> None:
    """13.2 With `ignore_result`, a plain `async def` task is logged as succeeded, and its body never runs."""
    worker = start(sandbox, concurrency=1)
    log_lines(worker, count_unawaited.delay("number").id, until="succeeded")
    assert count_on_the_loop.delay("number").get(timeout=10) == 1


def test_a_kept_client_and_asyncio_run(sandbox: Sandbox) -> None:
    """13.3 A client that is kept from one `asyncio.run` to the next fails, because its connection belongs to
    a closed loop.
    """
    start(sandbox, concurrency=1)
    assert count_by_asyncio_run.delay("number").get(timeout=10) == 1
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        count_by_asyncio_run.delay("number").get(timeout=10)


def test_a_kept_client_and_a_kept_loop(sandbox: Sandbox) -> None:
    """13.4 With one event loop for the life of the process, a client can be kept from task to task."""
    start(sandbox, concurrency=1)
    numbers = [count_on_the_loop.delay("number").get(timeout=10) for _ in range(5)]
    assert numbers == [1, 2, 3, 4, 5]
    waits = [wait_on_the_loop.delay(seconds=0.01).get(timeout=10) for _ in range(2)]
    assert len({(wait["pid"], wait["loop"]) for wait in waits}) == 1


def test_prefork_runs_one_in_each_child(sandbox: Sandbox) -> None:
    """13.5 On the prefork pool, no more async tasks run at the same time than there are children."""
    start(sandbox, concurrency=2)
    tasks = [wait_on_the_loop.delay(seconds=0.3) for _ in range(6)]
    waits = [task.get(timeout=15) for task in tasks]
    for child in {wait["pid"] for wait in waits}:
        mine = sorted((wait["started"], wait["ended"]) for wait in waits if wait["pid"] == child)
        assert all(ended <= started for (_, ended), (started, _) in itertools.pairwise(mine))
    assert len({wait["pid"] for wait in waits}) <= 2


def test_threads_share_one_loop(sandbox: Sandbox) -> None:
    """13.6 On the threads pool, the async tasks of a worker wait at the same time on one event loop."""
    tasks = [wait_on_the_loop.delay(seconds=3) for _ in range(20)]
    start(sandbox, concurrency=20, pool="threads")
    waits = [task.get(timeout=20) for task in tasks]
    assert len({(wait["pid"], wait["loop"]) for wait in waits}) == 1
    assert max(wait["started"] for wait in waits) < min(wait["ended"] for wait in waits)
    # Each coroutine sees its own request, though all share a thread.
    assert [wait["id"] for wait in waits] == [task.id for task in tasks]


def test_the_soft_time_limit_cancels(sandbox: Sandbox) -> None:
    """13.7 On the prefork pool, a soft time limit cancels the coroutine of an `AsyncTask`, and the coroutine
    can tidy up.
    """
    start(sandbox, concurrency=1)
    result = wait_on_the_loop.apply_async(kwargs={"seconds": 60}, soft_time_limit=1)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=15)
    assert sandbox.broker.client(RESULT_DATABASE).lrange("tidied", 0, -1) == [result.id.encode()]
    assert count_on_the_loop.delay("number").get(timeout=10) == 1  # the loop goes on
