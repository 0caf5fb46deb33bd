"""Upload a recording, and have it analysed."""

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.routes.tasks import THERE_ALREADY, Key
from api.users import User
from api.views import TaskView, view
from services.recordings import draft
from services.task_records import Wanted
from tasks.audio_tasks import analyze_recording

ANALYZE: str = analyze_recording.name
# Ten minutes are the most that is analysed: 173 MB at 48,000 samples a second, two channels, 24 bits.
MAX_BYTES = 200_000_000

router = APIRouter(tags=["tasks"])

_FILE = {"schema": {"type": "string", "format": "binary"}}
BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"audio/wav": _FILE, "audio/flac": _FILE}},
}


@router.post("/audio", status_code=201, responses=THERE_ALREADY, openapi_extra=BODY)
async def upload(user: User, request: Request, response: Response, key: Key = None) -> TaskView:
    """Keep the recording that is the body of the request, and the task that analyses it.

    It goes to disk while it arrives, and is refused as soon as it is too long or no recording.
    """
    with draft() as recording:
        try:
            async for data in request.stream():
                await run_in_threadpool(recording.write, data)
            path = await run_in_threadpool(recording.keep)
        except ValueError as error:
            raise HTTPException(422, str(error), {"Connection": "close"}) from None
    created = await request.app.state.inbox.put(Wanted(ANALYZE, {"path": path}, user, key))
    request.app.state.dispatcher.wake()
    response.headers["Location"] = f"/tasks/{created.record.id}"
    if not created.is_new:
        response.status_code = 200
    return view(created.record, request)
