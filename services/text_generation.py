"""Generate the text of a task record: each word goes to whoever follows, and the whole into the row.

A worker that is killed here leaves the row to another one, or to a replay: see task_runs.py.
"""

import time
from typing import TypedDict

from services import markov
from services.task_runs import Cancelled, Run, heartbeats
from services.text_request import TextRequest
from services.token_stream import RedisStreamPublisher

REPORT_SECONDS = 1.0  # between two reports of progress: each is a write to the database


class TextResult(TypedDict):
    """A text, of how many tokens (words, here), and by which model."""

    text: str
    tokens: int
    model: str


def generate(run: Run, request: TextRequest, stream: RedisStreamPublisher) -> TextResult | None:
    """Generate the text of `run`, and write what came of it into its row. Return None if it was cancelled.

    Raises `ValueError` for an unknown model, and `ClaimLost` if another worker has the row now. An error
    is written into the row, too: whoever looks at it finds the reason.
    """
    stream.publish("restart")  # what an earlier run has told is void
    stream.publish("status", status="processing")
    try:
        with heartbeats(run):
            result = _generate(run, request, stream)
    except Cancelled:
        run.cancelled()
        stream.publish("end", status="cancelled")
        return None
    except Exception as error:
        run.fail(str(error) or type(error).__name__)
        stream.publish("end", status="failed")
        raise
    run.complete(result)
    stream.publish("end", status="completed")
    return result


def _generate(run: Run, request: TextRequest, stream: RedisStreamPublisher) -> TextResult:
    written: list[str] = []
    reported = time.monotonic()
    for word in markov.words(request):
        run.check()
        written.append(word)
        stream.publish("token", text=word)
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            percent, step = (
                100 * len(written) // request.max_tokens,
                f"{len(written)} of {request.max_tokens} tokens",
            )
            run.report(percent, step)
            stream.publish("progress", percent=percent, step=step)
    return {"text": "".join(written).strip(), "tokens": len(written), "model": request.model}
