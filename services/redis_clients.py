"""Redis without Celery: a client for the same server, in the forms of URL that Celery takes for results.

Redis, Redis with TLS, a Unix socket as the sandbox has one, Redis behind Sentinel. Both clients give text and
not bytes, and each try has a limit: without one, a frozen server would hold its caller for ever.
"""

import re
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from settings import settings

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 5.0  # longer than a blocking command waits in the server
AGAIN = 1  # at once: a kept connection may have ended with a restart of the server


def client(url: str | None = None) -> redis.Redis:
    """Return a client for the server at `url`, by default the result backend's. It connects when used."""
    url = url or settings.result_backend
    if url.startswith("sentinel:"):
        hosts, options = _sentinels(url)
        servers: Any = redis.sentinel.Sentinel(hosts, **options)  # type: ignore[no-untyped-call]
        return servers.master_for(settings.sentinel_master)
    retry = Retry(NoBackoff(), AGAIN)
    return redis.Redis.from_url(_as_redis_py(url), retry=retry, **_options())


def async_client(url: str | None = None) -> redis.asyncio.Redis:
    """Return the same for `await`. It belongs to the event loop that uses it first."""
    url = url or settings.result_backend
    if url.startswith("sentinel:"):
        hosts, options = _sentinels(url)
        servers: Any = redis.asyncio.sentinel.Sentinel(hosts, **options)  # type: ignore[no-untyped-call]
        return servers.master_for(settings.sentinel_master)
    retry = AsyncRetry(NoBackoff(), AGAIN)
    return redis.asyncio.Redis.from_url(_as_redis_py(url), retry=retry, **_options())


def _options() -> dict[str, Any]:
    return {
        "decode_responses": True,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": ANSWER_SECONDS,
    }


def _as_redis_py(url: str) -> str:
    """Return a URL of Celery's as redis-py writes it. Only that of a Unix socket is another one.

    >>> _as_redis_py("redis+socket:///run/redis.sock?virtual_host=1")
    'unix:///run/redis.sock?db=1'
    """
    if url.startswith("redis+socket:"):
        return re.sub(r"([?&])virtual_host=", r"\1db=", url.replace("redis+socket:", "unix:", 1))
    # Celery also takes the names of Python's ssl module.
    return re.sub(r"(?<=ssl_cert_reqs=)CERT_(\w+)", lambda name: name[1].lower(), url)


def _sentinels(url: str) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Return the hosts of the Sentinels, and the options for the Redis that they name."""
    # The login of Redis is in each URL.
    parts = [urlsplit(one) for one in url.split(";")]
    hosts = [(str(part.hostname), part.port or 26379) for part in parts]
    first = f"redis://{url.split(';')[0].partition('://')[2]}"
    own = redis.connection.parse_url(first)  # type: ignore[no-untyped-call]
    login = {name: own[name] for name in ("username", "password", "db") if name in own}
    return hosts, _options() | login
