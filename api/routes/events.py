"""The events of a task, as server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.events import events_of
from api.routes.tasks import TaskId
from api.users import User
from api.views import view
from services import task_records
from services.token_stream import FIRST, check_id

router = APIRouter(prefix="/tasks", tags=["tasks"])


async def last_event(
    last_event_id: Annotated[str, Header(description="The id of the last event that arrived.")] = FIRST,
) -> str:
    """Return where to go on. Raises `HTTPException` 400 if it is no id of ours."""
    try:
        return check_id(last_event_id)
    except ValueError:
        text = f"Last-Event-ID={last_event_id[:50]!r}: send the id of an event of this task, or leave it out"
        raise HTTPException(400, text) from None


def own_task(task_id: TaskId, user: User) -> str:
    """Return the id, if the task is the user's. A dependency can still say 404; a stream that runs cannot."""
    return task_records.find(task_id, user).id


# FastAPI describes each answer of a stream as a stream. Errors are JSON, as everywhere.
AS_JSON = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
ERRORS: dict[int | str, Any] = {
    400: {"description": "Last-Event-ID is broken", "content": AS_JSON},
    404: {"description": "The user has no such task", "content": AS_JSON},
    422: {"description": "A field is wrong", "content": AS_JSON},
}


@router.get("/{task_id}/events", response_class=EventSourceResponse, responses=ERRORS)
async def events(
    task_id: Annotated[str, Depends(own_task)],
    after: Annotated[str, Depends(last_event)],
    request: Request,
) -> AsyncIterator[ServerSentEvent]:
    """Stream what happens to a task until it ends: its row, its progress, its text.

    A client that comes again with Last-Event-ID gets what it has missed.
    """
    redis = request.app.state.redis
    async for event in events_of(redis, task_id, after, lambda: view(task_records.find(task_id), request)):
        yield event
