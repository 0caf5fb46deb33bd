"""pytest-celery's nodes for this project: its app, its tasks, its queues. Local and on Docker alike.

With these fixtures a test writes `add.delay(4, 5).get(timeout=10)`, and workers of its own run the task.
"""

from collections.abc import Iterator
from functools import partial
from threading import local
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_celery import (
    DEFAULT_WORKER_CONTAINER_TIMEOUT,
    DEFAULT_WORKER_VOLUME,
    CeleryTestBackend,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerContainer,
    RedisContainer,
    RedisTestBroker,
)
from pytest_docker_tools import container, fxtr

from celery_app import app
from tasks.health_tasks import ping


class ProjectWorker(CeleryWorkerContainer):
    """A worker that serves all queues of this project."""

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        """Return the command of the worker, with the further arguments `args`."""
        return [
            *("celery", "-A", "celery_app", "worker", "-n", f"{cls.worker_name()}@%h"),
            *(f"--loglevel={cls.log_level()}", "--concurrency=1", "--without-mingle", *args),
        ]

    @classmethod
    def worker_queue(cls) -> str:
        """The queue of the task that `ready(ping=True)` sends."""
        return "health"

    @classmethod
    def initial_env(cls, celery_worker_cluster_config: dict, initial: dict | None = None) -> dict:
        """Return the environment: this test's broker, and a folder of this test for what workers keep."""
        own = {"STATE_DIR": f"{DEFAULT_WORKER_VOLUME['bind']}/state"}
        return super().initial_env(celery_worker_cluster_config, own | (initial or {}))


class ProjectSetup(CeleryTestSetup):
    """A setup whose `ready(ping=True)` sends a task that the workers of this project know."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ping = SimpleNamespace(s=partial(ping.s, "pong"))  # type: ignore[assignment]


def worker_container(**changes: Any) -> Any:
    """Return a fixture for one worker container. `changes` replace arguments of pytest-docker-tools."""
    return container(
        **{
            "image": "{celery_base_worker_image.id}",
            "environment": fxtr("default_worker_env"),
            "network": "{default_pytest_celery_network.name}",
            "volumes": {"{default_worker_volume.name}": DEFAULT_WORKER_VOLUME},
            "wrapper_class": ProjectWorker,
            "timeout": DEFAULT_WORKER_CONTAINER_TIMEOUT,
            "command": fxtr("default_worker_command"),
        }
        | changes
    )


default_worker_container = worker_container()


@pytest.fixture
def default_worker_container_cls() -> type[ProjectWorker]:
    """The class that knows the command and the environment of a worker."""
    return ProjectWorker


@pytest.fixture
def celery_setup_cls() -> type[ProjectSetup]:
    """The class of the setup."""
    return ProjectSetup


# Redis and one worker. By default pytest-celery runs each test on RabbitMQ too, and without these three a
# test that asks for `celery_worker` alone gets a backend in memory.


@pytest.fixture
def celery_broker(celery_redis_broker: RedisTestBroker) -> RedisTestBroker:
    """The broker of the test."""
    return celery_redis_broker


@pytest.fixture
def celery_backend(default_redis_backend: RedisContainer) -> CeleryTestBackend:
    """The result backend of the test.

    It is not a `RedisTestBackend`, which looks at each object of Python at the end: 0.2 seconds a test.
    """
    return CeleryTestBackend(default_redis_backend)


@pytest.fixture
def celery_worker(celery_setup_worker: CeleryTestWorker) -> CeleryTestWorker:
    """The worker of the test."""
    return celery_setup_worker


@pytest.fixture
def celery_setup_app(celery_setup_config: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """This project's app, which for one test sends to the test's broker."""
    for variable in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.delenv(variable, raising=False)  # it would win over the configuration
    for key, url in celery_setup_config.items():
        monkeypatch.setitem(app.conf, key, url)
    # The app keeps its connections. Put them aside, so that it makes new ones; monkeypatch brings them back.
    monkeypatch.setattr(app, "_pool", None)
    monkeypatch.setattr(app.amqp, "_producer_pool", None)
    monkeypatch.setattr(app, "_backend_cache", None)
    monkeypatch.setattr(app, "_local", local())
    app.set_current()
    yield app
    connections: list[Any] = [app.amqp.producer_pool, app.pool]
    for pool in connections:
        pool.force_close_all()
    backend: Any = app.backend
    backend.result_consumer.stop()
    backend.result_consumer.subscribed_to.clear()  # a result that lives on has nothing to unsubscribe from
    backend.client.close()
