"""What all tests share: pytest-celery on this project's app, and two guards against silent loss.

A skip is a failure in CI. And the number of test functions in each folder is written down in counts.json:
a test that is no longer collected, for whatever reason, does not go unnoticed.
"""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.local_engine import docker_fixtures, local_fixtures, project_fixtures

COUNTS = Path(__file__).with_name("counts.json")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--docker",
        action="store_true",
        help="run the nodes of pytest-celery in Docker containers, not as local processes",
    )
    parser.addoption(
        "--update-counts", action="store_true", help="write the numbers of tests to tests/counts.json"
    )


def pytest_configure(config: pytest.Config) -> None:
    # Late: the plugin that is registered last wins, and these fixtures replace some of pytest-celery's.
    config.pluginmanager.register(project_fixtures)
    if config.getoption("docker"):
        docker_fixtures.require_engine()
        config.pluginmanager.register(docker_fixtures)
    else:
        config.pluginmanager.register(local_fixtures)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("keyword") or [arg for arg in config.args if Path(arg).name != "tests"]
    if chosen and not config.getoption("update_counts"):
        return
    functions = {item.nodeid.partition("[")[0] for item in items}
    counts = dict(sorted(Counter(str(Path(name.partition("::")[0]).parent) for name in functions).items()))
    if config.getoption("update_counts"):
        COUNTS.write_text(json.dumps(counts, indent=2) + "\n")
    expected = json.loads(COUNTS.read_text())
    if counts != expected:
        raise pytest.UsageError(
            f"the number of tests has changed: {COUNTS.name} says {expected}, collected were {counts}. "
            "Find what is missing, or run `./learn test --update-counts --collect-only`."
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and os.environ.get("CI") and reporter.stats.get("skipped"):
        reporter.write_line("A test was skipped: this machine lacks something that CI must have.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
