"""What the API says of a task, and of an error."""

from datetime import datetime
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict

from services.arguments import MAX_PROBLEMS
from services.error_texts import shown
from services.models import TaskRecord
from services.task_records import Status


class TaskView(BaseModel):
    """One task of the user. `note` says what keeps a pending one from being sent."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    task: str
    arguments: dict[str, Any]
    status: Status
    percent: int
    step: str
    result: Any
    error: str | None
    runs: int
    cancel_requested: bool
    created_at: datetime
    finished_at: datetime | None
    note: str = ""


class Problem(BaseModel):
    """What is wrong with a request: the field, its value, and what was expected."""

    detail: str


def view(record: TaskRecord, request: Request) -> TaskView:
    """Return what the API says of a row."""
    task = TaskView.model_validate(record)
    if record.status == "pending" and record.dispatched_at is None:
        task.note = request.app.state.dispatcher.trouble
    return task


def explain(error: RequestValidationError) -> str:
    """Return what is wrong with a request, in one line that stays short."""
    texts = [_text(problem) for problem in error.errors()]
    more = [f"and {len(texts) - MAX_PROBLEMS} more"] if len(texts) > MAX_PROBLEMS else []
    return "; ".join(texts[:MAX_PROBLEMS] + more)


def _text(problem: dict[str, Any]) -> str:
    if problem["type"] == "json_invalid":
        return f"the body: not JSON ({problem['ctx']['error']}, at character {problem['loc'][1]})"
    _, *path = problem["loc"]  # the first one says body, query, path or header
    if not path and problem["type"] != "missing":
        return f"the body={shown(problem['input'])}: send a JSON object, and Content-Type: application/json"
    name = ".".join(map(str, path)) or "the body"
    value = "" if problem["type"] == "missing" else f"={shown(problem['input'])}"
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{name[:80]}{value}: {reason[0].lower()}{reason[1:]}"
