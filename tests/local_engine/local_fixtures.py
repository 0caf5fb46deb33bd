"""The fixtures by which a local worker has this project from its own folder, not from a volume."""

import inspect
import os
from types import ModuleType

import pytest
from pytest_celery import DEFAULT_WORKER_VOLUME

from settings import ROOT
from tests.local_engine.project_fixtures import ProjectWorker


class LocalWorker(ProjectWorker):
    """A worker that imports this project."""

    @classmethod
    def initial_env(cls, celery_worker_cluster_config: dict, initial: dict | None = None) -> dict:
        """Return the environment, with this project on the path for imports."""
        path = {"PYTHONPATH": os.pathsep.join([DEFAULT_WORKER_VOLUME["bind"], str(ROOT)])}
        return super().initial_env(celery_worker_cluster_config, path | (initial or {}))


@pytest.fixture
def default_worker_container_cls() -> type[ProjectWorker]:
    """The class that knows the command and the environment of a worker."""
    return LocalWorker


@pytest.fixture
def default_worker_initial_content(default_worker_utils_module: ModuleType) -> dict[str, bytes]:
    """The files of a worker's volume. The app and its tasks are not among them: the project has them."""
    return {"utils.py": inspect.getsource(default_worker_utils_module).encode()}
