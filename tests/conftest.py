"""What all tests share: sandboxes, pytest-celery on this project's app, and guards against silent loss.

A skip is a failure in CI. And the number of test functions in each folder is written down in counts.json:
a test that is no longer collected, for whatever reason, does not go unnoticed.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import pools

from celery_app import app
from lab.sandbox import Sandbox
from services.database import engine
from settings import MAIL_SOCKET, settings
from tests.local_engine import docker_fixtures, engine_fixtures, local_fixtures, project_fixtures
from tests.newcomer import copy_project, environment_of_a_newcomer
from tests.waiting import processes_of, wait_for, wait_until_gone

COUNTS = Path(__file__).with_name("counts.json")
COUNTED = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--docker",
        action="store_true",
        help="run the nodes of pytest-celery in Docker containers, not as local processes",
    )
    parser.addoption("--flakes", type=int, default=1, help="repeat each check of an exercise that often")
    parser.addoption(
        "--update-counts", action="store_true", help="write the numbers of tests to tests/counts.json"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("update_counts") and not is_whole(config):
        raise pytest.UsageError("--update-counts counts all tests: leave out what selects some of them")
    # Late: the plugin that is registered last wins, and these fixtures replace some of pytest-celery's.
    config.pluginmanager.register(project_fixtures)
    if config.getoption("docker"):
        docker_fixtures.require_engine()
        config.pluginmanager.register(docker_fixtures)
    else:
        config.pluginmanager.register(engine_fixtures)
        config.pluginmanager.register(local_fixtures)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return how many processes run the tests: two for each core, for most tests wait for other processes.

    Single files, as in `./learn test tests/unit/test_mail.py`, run in one process: it starts sooner.
    """
    only_files = all(Path(argument.partition("::")[0]).is_file() for argument in config.args)
    return 0 if only_files else 2 * (os.cpu_count() or 1)


def is_whole(config: pytest.Config) -> bool:
    """Tell whether all tests are asked for. Not so with a path, and with an option that leaves tests out."""
    names = ("keyword", "deselect", "ignore", "ignore_glob", "lf", "stepwise")
    leaves_out = any(config.getoption(name, default=None) for name in names)  # a plugin may be switched off
    other_marks = config.getoption("markexpr") not in config.getini("addopts")
    return config.args_source is config.ArgsSource.TESTPATHS and not (leaves_out or other_marks)


def pytest_configure_node(node: Any) -> None:
    """Tell a process of pytest-xdist, which gets the default path as if it had been typed."""
    node.workerinput["is_whole"] = is_whole(node.config)


@pytest.hookimpl(tryfirst=True)  # before any test is deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    workerinput: dict[str, bool] = getattr(config, "workerinput", {})
    if not workerinput.get("is_whole", is_whole(config)):
        return
    functions = {item.nodeid.partition("[")[0] for item in items}
    counts = dict(sorted(Counter(str(Path(name.partition("::")[0]).parent) for name in functions).items()))
    if config.getoption("update_counts"):
        COUNTS.write_text(json.dumps(counts, indent=2) + "\n")
    if not workerinput and (difference := difference_from_counts(counts)):
        raise pytest.UsageError(difference)
    if workerinput:
        config.workeroutput["counts"] = counts  # type: ignore[attr-defined]  # pytest-xdist adds it


def difference_from_counts(counts: dict[str, int]) -> str:
    """Return what differs from the numbers of tests that are written down, or an empty text."""
    expected = json.loads(COUNTS.read_text())
    if counts == expected:
        return ""
    return (
        f"the number of tests has changed: {COUNTS.name} says {expected}, collected were {counts}. "
        "Find what is missing, or run `./learn test --update-counts --collect-only`."
    )


def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of pytest-xdist has counted: an error that it raises, nobody could read."""
    if counts := getattr(node, "workeroutput", {}).get("counts"):
        node.config.stash[COUNTED] = counts


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    faults = []
    if counts := session.config.stash.get(COUNTED, None):
        faults.append(difference_from_counts(counts))
    if os.environ.get("CI") and reporter.stats.get("skipped"):
        faults.append("A test was skipped: this machine lacks something that CI must have.")
    for fault in filter(None, faults):
        reporter.write_line(fault, red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


# --- a real broker and real workers for each test ---


def forget_connections() -> None:
    """Let this process connect anew: a test before may have restarted the broker."""
    pools.reset()
    app._pool = app.amqp._producer_pool = None  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def shared_sandbox() -> Iterator[Sandbox]:
    """Keep the sandbox's parent process and its broker running for all tests of this process."""
    with Sandbox() as sandbox:
        yield sandbox
        status = sandbox.connection.status()
    wait_for(f"all processes have ended: {status}", lambda: not processes_of(sandbox.folder), seconds=5)


@pytest.fixture
def sandbox(shared_sandbox: Sandbox) -> Iterator[Sandbox]:
    """Return a sandbox with an empty broker. Its workers end with the test."""
    with Sandbox() as sandbox:
        forget_connections()
        sandbox.broker.client().flushall()
        yield sandbox
        for worker in sandbox.workers:
            worker.kill()


@pytest.fixture
def drill_sandbox(shared_sandbox: Sandbox) -> Iterator[Sandbox]:
    """Return a sandbox whose workers have the drill profile: redelivery within seconds."""
    with Sandbox(profile="drill") as sandbox:
        forget_connections()
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


@pytest.fixture
def room() -> Iterator[Path]:
    """Return a folder with a short path: a socket's path may have about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="learn-") as folder:
        yield Path(folder)
        left = processes_of(folder)
        for process in left:
            process.kill()
    assert not left


# --- files, database and mail of the real-world tasks ---


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty data folder. It and an empty place for a database are for this process and for workers
    that start later.
    """
    for name in ("data_dir", "state_dir"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(settings, name, tmp_path / name)
        monkeypatch.setenv(name.upper(), str(tmp_path / name))
    for name in ("database_url", "smtp_host"):  # what the learner's .env may say
        monkeypatch.setattr(settings, name, None)
        monkeypatch.setenv(name.upper(), "")
    yield settings.data_dir
    engine().dispose()


@pytest.fixture
def mailbox(shared_sandbox: Sandbox) -> Iterator[Path]:
    """Return the folder of the sandbox's mail server, without mails and faults of other tests."""

    def clear() -> None:
        for folder in ("mail", "mail-faults"):
            shutil.rmtree(shared_sandbox.folder / folder, ignore_errors=True)
        (shared_sandbox.folder / "mail.log").unlink(missing_ok=True)

    clear()
    wait_for("the mail server listens", (shared_sandbox.folder / MAIL_SOCKET).exists)
    yield shared_sandbox.folder
    clear()


# --- a newcomer's checkout ---


@pytest.fixture
def copy(room: Path) -> Path:
    """Return a copy of this project that has our packages."""
    copy_project(room / "copy")
    return room / "copy"


@pytest.fixture
def environment(room: Path) -> dict[str, str]:
    """Return the environment of a new user, with an empty home."""
    return environment_of_a_newcomer(room)
