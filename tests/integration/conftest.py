"""A real broker and real workers for each test. The parent process of them all lives for the session."""

from collections.abc import Iterator

import pytest

from lab.sandbox import Sandbox
from tests.waiting import processes_of


@pytest.fixture(scope="session")
def keeper() -> Iterator[Sandbox]:
    """Keep the sandbox's parent process and its broker running for all tests of this process."""
    with Sandbox() as sandbox:
        yield sandbox
    assert not processes_of(sandbox.folder), "the tests left processes behind"


@pytest.fixture
def sandbox(keeper: Sandbox) -> Iterator[Sandbox]:
    """Return a sandbox with an empty broker. Its workers end with the test."""
    with Sandbox() as sandbox:
        sandbox.broker.client().flushall()
        yield sandbox
        for worker in sandbox.workers:
            worker.kill()


@pytest.fixture
def lab_sandbox(keeper: Sandbox) -> Iterator[Sandbox]:
    """Return a sandbox whose workers have the lab profile: redelivery within seconds."""
    with Sandbox(profile="lab") as sandbox:
        sandbox.broker.client().flushall()
        yield sandbox
        for worker in sandbox.workers:
            worker.kill()
