"""The fixtures that put local processes in the place of Docker's containers, whatever the tests are of."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pytest
from pytest_celery import RedisContainer
from pytest_docker_tools import container, fxtr
from redis import Redis

from tests.local_engine import worker_utils
from tests.local_engine.engine import LocalEngine
from tests.local_engine.part import NotLocal


@pytest.fixture(scope="session")
def docker_client() -> Iterator[LocalEngine]:
    """Give everything in pytest-celery the local engine: it asks for Docker by this one fixture."""
    engine = LocalEngine()
    yield engine
    engine.close()


class SocketServer(RedisContainer):
    """A Redis node with a private socket where pytest-celery expects a TCP port."""

    @property
    def url(self) -> str:
        """The URL for workers and clients alike."""
        return f"redis+socket://{quote(self.attrs['Socket'])}?virtual_host={self.vhost}"

    host_url = url

    @property
    def port(self) -> int:
        """Raise `NotLocal`: there is no port."""
        raise NotLocal("the port of a server: it listens on a socket, use its url or client")

    @property
    def celeryconfig(self) -> dict[str, Any]:
        """What the nodes and clusters of pytest-celery know of this server."""
        return {"url": self.url, "host_url": self.url, "hostname": self.hostname, "vhost": self.vhost}

    @property
    def client(self) -> Redis:
        """A client that returns text, like the one of pytest-celery."""
        return Redis(unix_socket_path=self.attrs["Socket"], db=int(self.vhost), decode_responses=True)


def _server(role: str) -> Any:
    return container(
        image=f"{{default_redis_{role}_image}}",
        environment=fxtr(f"default_redis_{role}_env"),
        network="{default_pytest_celery_network.name}",
        wrapper_class=SocketServer,
        command=fxtr(f"default_redis_{role}_command"),
    )


default_redis_broker = _server("broker")
default_redis_backend = _server("backend")


@pytest.fixture
def default_worker_utils_module() -> ModuleType:
    """The module by which pytest-celery asks a container for its processes."""
    return worker_utils
