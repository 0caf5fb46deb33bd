"""What all tests share: pytest-celery on this project's app, on local processes or on Docker."""

import pytest

from tests.local_engine import fixtures, project


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--docker",
        action="store_true",
        help="run the nodes of pytest-celery in Docker containers, not as local processes",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Late: the plugin that is registered last wins, and these fixtures replace some of pytest-celery's.
    config.pluginmanager.register(project)
    if not config.getoption("docker"):
        config.pluginmanager.register(fixtures)
