"""Submit a task, look at it, cancel it, run it again."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from api.users import User
from api.views import TaskView, view
from services import markov, task_records
from services.task_records import MAX_PAGE, Status, Wanted
from services.text_request import Model, Prompt, Seed, Tokens
from tasks.ai_tasks import run_ai_text_generation

GENERATE_TEXT: str = run_ai_text_generation.name
MODELS = tuple(markov.MODELS)
ID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

router = APIRouter(tags=["tasks"])
TaskId = Annotated[str, Field(pattern=ID, description="The id that the submission gave.")]
Key = Annotated[
    str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200, pattern=r"^[\x20-\x7e]+$")
]
THERE_ALREADY: dict[int | str, Any] = {200: {"model": TaskView, "description": "It was there already"}}


class TextRequest(BaseModel):
    """A text to be generated. What is not given, the task chooses."""

    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True)

    prompt: Prompt
    model: Model = MODELS[0]
    max_tokens: Tokens | None = None
    seed: Seed | None = None

    @field_validator("model")
    @classmethod
    def _model_is_known(cls, value: str) -> str:
        if value not in MODELS:
            raise ValueError(f"no such model; use one of {', '.join(MODELS)}")
        return value


@router.post("/tasks", status_code=201, responses=THERE_ALREADY)
async def submit(
    text: TextRequest, user: User, request: Request, response: Response, key: Key = None
) -> TaskView:
    """Keep the task, and answer. Its message is sent at once, or when the broker is back.

    The same `Idempotency-Key` gives the task that is there: who got no answer may ask again.
    """
    wanted = Wanted(GENERATE_TEXT, text.model_dump(exclude_none=True), user, key)
    created = await request.app.state.inbox.put(wanted)
    request.app.state.dispatcher.wake()
    response.headers["Location"] = f"/tasks/{created.record.id}"
    if not created.is_new:
        response.status_code = 200
    return view(created.record, request)


@router.get("/models")
async def models() -> list[str]:
    """Return the models that a text can be generated with. The first one is the default."""
    return list(MODELS)


@router.get("/tasks")
def tasks(
    user: User,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    before: Annotated[TaskId | None, Query(description="The last id of the page before.")] = None,
    status: Status | None = None,
) -> list[TaskView]:
    """Return the newest tasks of the user, a page at a time."""
    return [view(record, request) for record in task_records.page(user, limit, before, status)]


@router.get("/tasks/{task_id}")
def task(task_id: TaskId, user: User, request: Request) -> TaskView:
    """Return one task of the user."""
    return view(task_records.find(task_id, user), request)


@router.post("/tasks/{task_id}/cancel")
def cancel(task_id: TaskId, user: User, request: Request) -> TaskView:
    """Cancel a task that waits, and ask the worker to end one that runs: it does at its next heartbeat."""
    return view(task_records.request_cancel(task_id, user), request)


@router.post("/tasks/{task_id}/replay")
def replay(task_id: TaskId, user: User, request: Request) -> TaskView:
    """Let a failed or cancelled task run again, under the same id."""
    record = task_records.replay(task_id, user)
    request.app.state.dispatcher.wake()
    return view(record, request)
