"""Is the app healthy? Every part answers, and each queue has a worker that reads it.

A worker that answers is not enough: it may read other queues. Then tasks wait for ever, and all looks well.
"""

import time
from typing import Literal, TypedDict

from kombu.exceptions import OperationalError

import services.health
from celery_app import QUEUES, app, ask_broker, ask_result_backend
from settings import settings

WORKER_SECONDS = 1.0  # how long workers have to answer
CANARY_SECONDS = 5.0
OFF = "ok (off: USE_REDIS=false)"
NOT_ASKED = "not asked: the broker does not answer"


class Health(TypedDict):
    """What the web front's /health says. A check begins with "ok", or says what is wrong."""

    status: Literal["healthy", "unhealthy"]
    checks: dict[str, str]


def health(seconds: float = WORKER_SECONDS) -> Health:
    """Ask the database, the broker, the result backend and the workers. Takes a little more than `seconds`.

    Workers that do not answer in that time count as away. One on the solo pool cannot answer while it works.
    """
    checks = {"database": services.health.database()}
    checks |= _checks_of_redis(seconds) if settings.use_redis else {"redis": OFF}
    is_healthy = all(text == "ok" or text.startswith("ok (") for text in checks.values())
    return {"status": "healthy" if is_healthy else "unhealthy", "checks": checks}


def _checks_of_redis(seconds: float) -> dict[str, str]:
    try:
        ask_broker()
    except OperationalError as error:
        return {"redis": str(error), **dict.fromkeys(("result_backend", "celery_worker", "queues"), NOT_ASKED)}
    return {"redis": "ok", "result_backend": _result_backend(), **_checks_of_workers(seconds)}


def _result_backend() -> str:
    try:
        ask_result_backend()
    except OperationalError as error:
        return str(error)
    return "ok"


def _checks_of_workers(seconds: float) -> dict[str, str]:
    try:
        read = queues_by_worker(seconds)
    except OperationalError as error:  # it went away in this moment
        return dict.fromkeys(("celery_worker", "queues"), str(error))
    unread = unread_queues(read)
    return {
        "celery_worker": f"ok ({len(read)} workers)" if read else "no worker answers: ./start_worker.sh",
        "queues": "ok" if not unread else f"no worker reads {', '.join(unread)}",
    }


def queues_by_worker(seconds: float = WORKER_SECONDS) -> dict[str, list[str]]:
    """Return the workers that answer within `seconds`, each with the queues that it reads."""
    answers = app.control.inspect(timeout=seconds).active_queues() or {}
    return {worker: [queue["name"] for queue in queues] for worker, queues in answers.items()}


def unread_queues(read: dict[str, list[str]]) -> list[str]:
    """Return the queues of the app that none of these workers reads."""
    return [queue for queue in QUEUES if not any(queue in queues for queues in read.values())]


def canary(seconds: float = CANARY_SECONDS) -> dict[str, float | None]:
    """Send a ping to each queue, and return how many seconds its answer took: None if there was none in time.

    This is what a task of a user meets: the wait in the queue, a worker, the result backend. A ping has the
    priority that is served first. One that is not taken in time expires.
    Raises `OperationalError` if the broker does not answer.
    """
    app.loader.import_default_modules()
    ping = app.tasks["tasks.health_tasks.ping"]
    began = time.monotonic()
    sent = {queue: ping.apply_async(queue=queue, expires=seconds, ignore_result=False) for queue in QUEUES}
    answered: dict[str, float | None] = dict.fromkeys(sent)
    while missing := [queue for queue in sent if answered[queue] is None]:
        for queue in missing:
            if sent[queue].ready():
                answered[queue] = time.monotonic() - began
        if time.monotonic() - began > seconds:
            break
        time.sleep(0.02)
    for result in sent.values():
        result.forget()
    return answered
