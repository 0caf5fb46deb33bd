"""Is anybody there? Tasks that show that messages get through.

Queue: health.
"""

from collections.abc import Callable

from kombu.exceptions import OperationalError

from celery_app import app, ask_broker, ask_result_backend
from services import health
from services.arguments import checked


@app.task
@checked
def ping(message: str = "ping") -> str:
    """Return `message`: proof that broker, worker and result backend work together."""
    return message


@app.task
def health_check() -> dict[str, str]:
    """Return what this worker can reach: "ok" or a reason, for the broker, the results, the database, the disk.

    Other hosts have other networks and disks: what the web front can reach says nothing about a worker.
    """
    return {
        "redis": _answer_of(ask_broker),
        "result_backend": _answer_of(ask_result_backend),
        "database": health.database(),
        "disk": health.disk(),
    }


def _answer_of(ask: Callable[[], None]) -> str:
    try:
        ask()
    except OperationalError as error:
        return str(error)
    return "ok"
