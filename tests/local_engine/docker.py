"""The fixtures for `pytest --docker`: an image with this project's packages, a volume with its files."""

import shlex
import tomllib
from io import BytesIO

import docker
import pytest
from docker.errors import DockerException
from pytest_docker_tools import build, fxtr

from settings import ROOT

PROJECT = ("celery_app.py", "settings.py", "pyproject.toml", "tasks", "services", "migrations", "data")
NOT_PROJECT = {"__pycache__", "out"}


def require_engine() -> None:
    """Raise `pytest.UsageError` if no Docker engine answers."""
    try:
        docker.from_env().ping()
    except DockerException as error:
        raise pytest.UsageError(
            f"--docker: no Docker engine answers ({error}). Start one, or leave out --docker."
        ) from None


def project_files() -> dict[str, bytes]:
    """Return what a worker needs of this project: path in the project -> content."""
    paths = [path for name in PROJECT for path in ((ROOT / name).rglob("*") if (ROOT / name).is_dir() else [ROOT / name])]
    return {
        str(path.relative_to(ROOT)): path.read_bytes()
        for path in paths
        if path.is_file() and not NOT_PROJECT & set(path.parts)
    }
