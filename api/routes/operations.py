"""How the whole is, for a load balancer."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.dispatcher import check_broker
from celery_app import app
from services.database import reading

PING_SECONDS = 1.0

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    """Each part is `ok`, or says what is wrong with it."""

    status: Literal["healthy", "unhealthy"]
    checks: dict[str, str]


@router.get("/health", responses={503: {"model": Health, "description": "Something is not ok"}})
def health(response: Response) -> Health:
    """Tell whether the database, the broker and a worker answer."""
    checks = {"database": _database(), "redis": _broker()}
    checks["celery_worker"] = _workers() if checks["redis"] == "ok" else "unknown: the broker does not answer"
    is_healthy = all(check.startswith("ok") for check in checks.values())
    if not is_healthy:
        response.status_code = 503
    return Health(status="healthy" if is_healthy else "unhealthy", checks=checks)


def _database() -> str:
    try:
        with reading() as session:
            session.execute(text("SELECT 1 FROM task_records LIMIT 1"))
    except (SQLAlchemyError, RuntimeError) as error:
        return f"does not answer ({type(error).__name__})"
    return "ok"


def _broker() -> str:
    try:
        check_broker()
    except Exception as error:  # noqa: BLE001 - each transport raises its own
        return f"does not answer ({type(error).__name__})"
    return "ok"


def _workers() -> str:
    answers = app.control.ping(timeout=PING_SECONDS)
    return f"ok ({len(answers)} workers)" if answers else "no worker answers"
