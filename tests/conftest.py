"""What all tests share: pytest-celery on this project's app, on local processes or on Docker."""

import pytest

from tests.local_engine import docker_fixtures, local_fixtures, project_fixtures


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--docker",
        action="store_true",
        help="run the nodes of pytest-celery in Docker containers, not as local processes",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Late: the plugin that is registered last wins, and these fixtures replace some of pytest-celery's.
    config.pluginmanager.register(project_fixtures)
    if config.getoption("docker"):
        docker_fixtures.require_engine()
        config.pluginmanager.register(docker_fixtures)
    else:
        config.pluginmanager.register(local_fixtures)
