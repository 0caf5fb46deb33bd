"""The base class of async tasks does for them what Celery does for all others."""

import asyncio

import pytest

from lab.sandbox import Sandbox
from tests.helper_tasks import fail_in_the_loop, retry_twice


@pytest.fixture(autouse=True)
def worker(sandbox: Sandbox) -> None:
    sandbox.start_worker(["basic"], include=["tests.helper_tasks"])


def test_an_async_task_can_retry() -> None:
    assert retry_twice.delay().get(timeout=20) == 2


def test_an_error_in_an_async_task_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="no such book"):
        fail_in_the_loop.delay("no such book").get(timeout=10)


def test_an_async_task_can_be_called_directly_from_plain_and_from_async_code() -> None:
    async def call() -> None:
        fail_in_the_loop("here")

    for run in (lambda: fail_in_the_loop("here"), lambda: asyncio.run(call())):
        with pytest.raises(ValueError, match="here"):
            run()
