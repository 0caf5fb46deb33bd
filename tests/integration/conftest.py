"""A real broker and real workers for each test. The parent process of them all lives for the session."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.sandbox import Sandbox
from tests.waiting import processes_of, wait_for, wait_until_gone


@pytest.fixture(scope="session")
def keeper() -> Iterator[Sandbox]:
    """Keep the sandbox's parent process and its broker running for all tests of this process."""
    with Sandbox() as sandbox:
        yield sandbox
        status = sandbox.connection.ask("status")
    wait_for(f"all processes have ended: {status}", lambda: not processes_of(sandbox.folder), seconds=5)


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


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a path for a sandbox of its own. It is short, and nothing of it may be left after the test."""
    path = Path(tempfile.mkdtemp(prefix="learn-")) / "s"
    yield path
    try:
        wait_until_gone(path)
    finally:
        for process in processes_of(path):
            process.kill()
        shutil.rmtree(path.parent)
