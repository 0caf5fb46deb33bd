"""The fixtures for `pytest --docker`: an image with this project's packages, a volume with its files."""

import inspect
import shlex
import tomllib
from io import BytesIO
from types import ModuleType

import docker
import pytest
from docker.errors import DockerException
from pytest_docker_tools import build, fxtr

from settings import ROOT

FILES = (
    *("*.py", "pyproject.toml", "tasks/*.py", "services/*.py", "services/migrations/**/*.py"),
    *("data/*.csv", "data/images/*", "data/stations/*"),
)


def require_engine() -> None:
    """Raise `pytest.UsageError` if no Docker engine answers."""
    try:
        docker.from_env().ping()
    except DockerException as error:
        raise pytest.UsageError(
            f"--docker: no Docker engine answers ({error}). Start one, or leave out --docker."
        ) from None


def project_files() -> dict[str, bytes]:
    """Return what a worker needs of this project: each file's path in the project, and its content."""
    return {
        str(path.relative_to(ROOT)): path.read_bytes() for pattern in FILES for path in ROOT.glob(pattern)
    }


@pytest.fixture
def default_worker_initial_content(default_worker_utils_module: ModuleType) -> dict[str, bytes]:
    """The files of a worker's volume: this project's, and the one that pytest-celery asks for processes."""
    return project_files() | {"utils.py": inspect.getsource(default_worker_utils_module).encode()}


@pytest.fixture(scope="session")
def worker_dockerfile() -> BytesIO:
    """A Dockerfile for the packages of this project. pytest-celery's own image has an older Python."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = [
        "FROM python:3.11-slim",
        f"RUN pip install --no-cache-dir psutil {shlex.join(packages)}",
        "WORKDIR /app",
    ]
    return BytesIO("\n".join(lines).encode())


celery_base_worker_image = build(fileobj=fxtr("worker_dockerfile"), tag="learn-celery/test-worker")
