"""What travels to Redis and back: options that are understood, connections that survive, errors that explain.

Celery and kombu 5.7.0 have three faults when the connection is lost. Each has a class here that mends it, and
a test in tests/integration/test_broker_restart.py that fails when a newer version needs it no longer.

celery_app.py names `Messages` and `BACKENDS`. Other apps in the same process keep Celery's own classes.
"""

import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import kombu
from celery.app.amqp import AMQP
from celery.backends import redis as backends
from kombu.exceptions import OperationalError
from kombu.transport import redis as transports
from redis import exceptions as redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

log = logging.getLogger(__name__)

LOST = (redis.ConnectionError, redis.TimeoutError)
LONGEST_PAUSE = 1.0  # seconds between two tries

# --- Options --------------------------------------------------------------------------------------------

LAST_PRIORITY = 9


def check_options(options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a countdown, an ETA, an expiry or a priority that Celery would misunderstand."""
    countdown, priority = options.get("countdown"), options.get("priority")
    if countdown is not None and countdown < 0:  # taken for "now"
        raise ValueError(f"countdown={countdown!r}: must be 0 or more seconds from now")
    _check_time("eta", options.get("eta"), "countdown=300")
    if not isinstance(options.get("expires"), int | float):  # seconds from now
        _check_time("expires", options.get("expires"), "expires=300")
    # 12, -1 and "high" are taken for one of the ten, and not for the one that was meant.
    if priority is not None and (type(priority) is not int or not 0 <= priority <= LAST_PRIORITY):
        raise ValueError(
            f"priority={priority!r}: must be a whole number from 0, served first, to {LAST_PRIORITY}"
        )


def _check_time(name: str, value: Any, in_seconds: str) -> None:
    remedy = f"use datetime.now(UTC) + timedelta(minutes=5), or {in_seconds} for 300 seconds from now"
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        is_naive = time is not None and time.utcoffset() is None
    except (ValueError, AttributeError):
        raise ValueError(f"{name}={value!r}: not a date and time; {remedy}") from None
    if is_naive:  # taken for UTC: too early in New York, too late in Beijing
        raise ValueError(f"{name}={value!r}: has no time zone; {remedy}")


# --- The broker -----------------------------------------------------------------------------------------


class _ClosesWithoutItsBroker:
    """A channel that can be closed when its connection is lost.

    The fault (kombu 5.7.0): closing a channel waits for an answer of the broker. When the broker has ended,
    the first channel of a worker raises, the others stay open, and then the connection forgets its address.
    Each acknowledgement on such a channel, and the next attempt to close it, raises `AttributeError:
    'NoneType' object has no attribute 'hostname'`. A worker that runs a task, or holds one with an ETA, ends.
    """

    def close(self) -> None:
        with suppress(*LOST):
            super().close()  # type: ignore[misc]

    def _unsubscribe_from(self, queue: str) -> None:
        with suppress(*LOST):  # the subscription has ended with the connection
            super()._unsubscribe_from(queue)  # type: ignore[misc]


class Channel(_ClosesWithoutItsBroker, transports.Channel):
    """A channel to Redis."""


class SentinelChannel(_ClosesWithoutItsBroker, transports.SentinelChannel):
    """A channel to the Redis that Sentinel names."""


class Transport(transports.Transport):
    """kombu's transport to Redis, with the channel above."""

    Channel = Channel


class SentinelTransport(transports.SentinelTransport):
    """kombu's transport to the Redis that Sentinel names, with the channel above."""

    Channel = SentinelChannel


_MENDED: dict[Any, Any] = {transports.Transport: Transport, transports.SentinelTransport: SentinelTransport}


class Connection(kombu.Connection):
    """A connection with these transports, whatever the scheme of its URL."""

    def get_transport_cls(self) -> Any:
        """Return the class of the transport."""
        stock = super().get_transport_cls()
        return _MENDED.get(stock, stock)


# --- Messages -------------------------------------------------------------------------------------------


class Messages(AMQP):
    """Makes and sends all messages of an app: of `delay`, `send_task`, canvases, beat, and its workers."""

    Connection = Connection

    def as_task_v2(
        self,
        task_id: str,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: Any = None,
        eta: Any = None,
        group_id: Any = None,
        group_index: Any = None,
        expires: Any = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        """Return the message, as Celery makes it. Raises `ValueError` as `check_options` does.

        It looks also at what comes later: callbacks, the rest of a chain, the body of a chord.
        """
        check_options(options | {"countdown": countdown, "eta": eta, "expires": expires})
        message = super().as_task_v2(
            *(task_id, name, args, kwargs, countdown, eta, group_id, group_index, expires, *more), **options
        )
        for signature in _signatures_in(message.body[2]):
            check_options(signature.get("options") or {})
        return message


def _signatures_in(part: Any) -> Iterator[dict[str, Any]]:
    """Give the signatures that travel inside a message, and those inside them."""
    if isinstance(part, dict) and "subtask_type" in part:
        yield part
        is_canvas = str(part["task"]).startswith("celery.")  # of others, the arguments are the learner's data
        part = [part.get("options"), part.get("kwargs") if is_canvas else None]
    inside = part.values() if isinstance(part, dict) else part
    for one in inside if isinstance(part, dict | list | tuple) else ():
        yield from _signatures_in(one)


# --- The result backend ---------------------------------------------------------------------------------


class ResultBackendError(redis.ConnectionError, OperationalError):
    """The result backend, not the broker, did not answer."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"The result backend does not answer ({error})")


class ResultConsumer(backends.ResultConsumer):  # type: ignore[misc, name-defined]
    """Whoever waits for a result goes on waiting when the connection is lost. The timeout is the limit.

    The faults (Celery 5.7.0): `get(timeout=15)` tries to reconnect as often as the retry policy says, and
    then raises RuntimeError, whatever its timeout. With a policy that lets publishing fail fast that is at
    once. And a result that is stored between the look after a reconnect and the subscription is missed.
    """

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait up to `timeout` seconds for a result."""
        try:
            if self._pubsub is None:  # the last attempt to reconnect has failed
                self._reconnect()
            super().drain_events(timeout)
        except LOST as error:
            log.warning("The result backend does not answer (%s). Waiting goes on.", error)
            time.sleep(LONGEST_PAUSE)

    def consume_from(self, task_id: str) -> None:
        """Subscribe to a result, and after a lost connection to those that are waited for.

        Raises `ResultBackendError` if the result backend does not answer.
        """
        try:
            if self._pubsub is None and self.subscribed_to:
                self._reconnect()
            super().consume_from(task_id)
        except LOST as error:
            raise ResultBackendError(error) from error

    def _reconnect_pubsub(self) -> None:
        super()._reconnect_pubsub()
        if self.subscribed_to:
            for found in filter(None, self.backend.client.mget(self.subscribed_to)):
                self.on_state_change(self._decode_result(found), None)

    @contextmanager
    def reconnect_on_error(self) -> Iterator[None]:
        """Reconnect once, and raise redis-py's error if that fails."""
        try:
            yield
        except LOST:
            self._reconnect()


class _RetriesEveryCommand:
    """A backend whose retry policy holds for all its commands.

    The fault (Celery 5.7.0): it holds for some. A task that reads its own state, as every update of its
    progress does, or that counts itself in a chord fails when the connection is lost at that moment.
    """

    ResultConsumer = ResultConsumer
    retry_policy: dict[str, Any]

    def _get_pool(self, **parameters: Any) -> Any:
        retry = Retry(ExponentialBackoff(cap=LONGEST_PAUSE, base=0.05), self.retry_policy["max_retries"])
        return super()._get_pool(**parameters, retry=retry)  # type: ignore[misc]

    def ensure(self, function: Callable[..., Any], arguments: tuple[Any, ...], **_: Any) -> Any:
        """Call `function`. The connection retries. Raises `ResultBackendError` when it gives up."""
        try:
            return function(*arguments)
        except LOST as error:
            raise ResultBackendError(error) from error


class RedisBackend(_RetriesEveryCommand, backends.RedisBackend):  # type: ignore[misc]
    """Results in Redis."""


class SentinelBackend(_RetriesEveryCommand, backends.SentinelBackend):  # type: ignore[misc]
    """Results in the Redis that Sentinel names."""


BACKENDS = {
    "redis": "transport:RedisBackend",
    "rediss": "transport:RedisBackend",
    "sentinel": "transport:SentinelBackend",
}


# --- What an error means --------------------------------------------------------------------------------

# A kind of error, or words of it; what the server does; the remedy. The first row that fits counts.
# No remedy loses what is queued.
_HANGS_UP = "It may expect TLS (write rediss://), or have too many clients (maxclients): look into its log."
_MEANINGS: tuple[tuple[type[BaseException] | str, str, str], ...] = (
    (
        redis.OutOfMemoryError,
        "is full",
        "What is queued there stays. Raise its maxmemory, or delete what else lies in it. Then send again.",
    ),
    (redis.ReadOnlyError, "is a read-only replica", "Name its primary in the URL, or use sentinel://."),
    (redis.BusyLoadingError, "is still loading its data", "Wait until it has, and try again."),
    (redis.AuthenticationError, "refuses the login", "Correct user and password in the URL."),
    (
        redis.NoPermissionError,
        "does not allow its user what Celery does",
        "Give this user more rights with ACL SETUSER, or name another user in the URL.",
    ),
    ("max number of clients", "has too many clients", "End some of them, or raise its maxclients."),
    (
        ssl.SSLCertVerificationError,
        "has a certificate that is not trusted here",
        "Add its authority to the URL: ssl_ca_certs=/path/to/ca.pem (docs/redis.md).",
    ),
    (ssl.SSLError, "does not encrypt as the URL says", "If it has no TLS, write redis:// and not rediss://."),
    (
        "handshake operation timed out",
        "does not encrypt as the URL says",
        "If it has no TLS, write redis:// and not rediss://.",
    ),
    (MasterNotFoundError, "finds no Redis", "Start Sentinel, or correct its hosts and SENTINEL_MASTER."),
    (redis.InvalidResponse, "does not speak the Redis protocol", "Correct host and port in the URL."),
    (redis.AskError, "is a Redis Cluster", "Celery needs a Redis without cluster mode."),
    (redis.ClusterError, "is a Redis Cluster", "Celery needs a Redis without cluster mode."),
    (redis.ResponseError, "refuses the message", "Correct what it names, and send again."),
    (BrokenPipeError, "closes the connection", _HANGS_UP),
    (ConnectionResetError, "closes the connection", _HANGS_UP),
    ("Connection closed by server", "closes the connection", _HANGS_UP),
)


@dataclass(frozen=True)
class Trouble:
    """What a server does, its own words, and the remedy: empty if it is away."""

    does: str
    words: str
    remedy: str
    in_result_backend: bool


def explain(error: BaseException) -> Trouble:
    """Return what `error` means. It may have been raised `from` the one that the network raised."""
    links = [error]
    while links[-1].__cause__:
        links.append(links[-1].__cause__)
    in_result_backend = any(isinstance(link, ResultBackendError) for link in links)
    known = [link for link in links if isinstance(link, (OSError, redis.RedisError))]
    reason = next((link for link in known if not isinstance(link, ResultBackendError)), error)
    words = " ".join(str(reason).partition(" : <")[0].split()).rstrip(".")  # Sentinel's has a page of details
    # One step down is what redis-py was told. Further down may be what the caller was busy with.
    told = reason.__cause__ or reason.__context__
    links = [reason, told] if isinstance(told, OSError) else [reason]
    for kind, does, remedy in _MEANINGS:
        for link in links:
            if kind in str(link) if isinstance(kind, str) else isinstance(link, kind):
                return Trouble(does, words, remedy, in_result_backend)
    return Trouble("does not answer", words, "", in_result_backend)
