"""The web front as an ASGI application: `uvicorn api.app:app`, or ./learn web.

What to learn here: an endpoint that waits for a database is `def`, and runs in a thread. As `async def` it
would stop the whole server meanwhile. And no endpoint sends a message: see dispatcher.py.
"""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy.exc import OperationalError

from api.body_limit import BodyLimit
from api.dispatcher import Dispatcher
from api.guard import Guard
from api.inbox import Inbox
from api.routes import events, operations, tasks
from api.views import Problem, explain
from services.database import migrate
from services.redis_clients import async_client
from services.task_records import KeyReused, NoSuchTask, WrongStatus
from settings import settings

PAGE = Path(__file__).with_name("page")

STATUS_CODES: dict[type[Exception], int] = {
    NoSuchTask: 404,
    WrongStatus: 409,
    KeyReused: 409,
    OperationalError: 503,
}
PROBLEMS = {
    401: "No cookie yet",
    404: "The user has no such task",
    409: "Its status, or the key, does not allow it",
    413: "The request is too long",
    422: "A field is wrong",
}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Bring the tables up to date, and run the dispatcher while the server runs."""
    migrate()
    # What is imported stays: the collector need not walk through it again and again (5 % of a request).
    gc.freeze()
    app.state.inbox = Inbox()
    app.state.dispatcher = Dispatcher()
    app.state.dispatcher.start()
    async with async_client() as app.state.redis:
        yield
    app.state.dispatcher.stop()


async def _tell(request: Request, error: Exception) -> JSONResponse:
    code = next(code for kind, code in STATUS_CODES.items() if isinstance(error, kind))
    text = "The database does not answer. Try again." if code == 503 else str(error)
    return JSONResponse({"detail": text}, code)


async def _tell_what_is_wrong(request: Request, error: RequestValidationError) -> JSONResponse:
    return JSONResponse({"detail": explain(error)}, 422)


app = FastAPI(
    title="Learn Celery",
    lifespan=lifespan,
    docs_url=None,  # these two pages load scripts from elsewhere. /openapi.json says the same
    redoc_url=None,
    responses={code: {"model": Problem, "description": text} for code, text in PROBLEMS.items()},
)
for module in (tasks, events, operations):
    app.include_router(module.router)
app.mount("/", StaticFiles(directory=PAGE, html=True))

for kind in STATUS_CODES:
    app.add_exception_handler(kind, _tell)
app.add_exception_handler(RequestValidationError, _tell_what_is_wrong)  # type: ignore[arg-type]
app.add_middleware(BodyLimit)
app.add_middleware(Guard, hosts=settings.web_hosts.split(","))
