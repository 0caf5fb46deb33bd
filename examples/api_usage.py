"""Behind a web API: submit by HTTP, read a text while it is written, cancel, and do without the broker.

Brings its own API, broker and worker up, and takes them down again. It needs the packages of `./learn web`.
"""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, Request, build_opener

import uvicorn

from lab.story import Story
from lab.waiting import wait_for

logging.getLogger("api").setLevel(logging.ERROR)  # that the broker is away is told by the steps below
story = Story(__doc__, queues=["ai"], ending="The same with a page: ./learn web")
listener = socket.create_server(("127.0.0.1", 0))
address = f"http://127.0.0.1:{listener.getsockname()[1]}"
client = build_opener(HTTPCookieProcessor(CookieJar()))  # the cookie says whose tasks these are
PROMPT = {"prompt": "Once upon a time", "max_tokens": 30}


def ask(method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Send a request, and return status code and answer."""
    request = Request(address + path, method=method, headers=headers)  # noqa: S310 - our own address
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with client.open(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def events(task_id: str) -> Iterator[tuple[str, Any]]:
    """Give the events of a task while they happen: each as its name and its data."""
    name = ""
    with client.open(f"{address}/tasks/{task_id}/events", timeout=30) as stream:
        for line in stream:
            field, _, value = line.decode().rstrip().partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


def ended(task_id: str) -> dict[str, Any]:
    """Wait until a task has ended, and return it."""
    *_, (_, task), _ = events(task_id)
    return dict(task)


@contextmanager
def frozen_broker() -> Iterator[None]:
    """Let the broker answer nobody for the time of a block. What is queued in it stays."""
    story.sandbox.broker.freeze()
    try:
        yield
    finally:
        story.sandbox.broker.thaw()


@story.step(expect=(201, "pending"))
def submit() -> tuple[int, str]:
    """Submit a task.

    The API writes a row, and answers. It sends no message itself: a thread beside it does, so nobody waits
    for the broker.
    """
    ask("GET", "/tasks")  # the first answer brings the cookie
    code, task = ask("POST", "/tasks", PROMPT)
    return code, task["status"]


@story.step(expect=lambda value: value[0] > 5 and value[1] == "completed" and value[2])
def read_live() -> tuple[int, str, bool]:
    """Read the text while it is written.

    Server-sent events are lines of text over HTTP. Each token is one event. The last event says that the task
    has ended, and its row has the whole text.
    """
    _, task = ask("POST", "/tasks", PROMPT | {"seed": 7})
    happened = list(events(task["id"]))
    tokens = [data["text"] for name, data in happened if name == "token"]
    whole = [data for name, data in happened if name == "task"][-1]
    return len(tokens), whole["status"], "".join(tokens).strip() == whole["result"]["text"].strip()


@story.step(expect=(201, 200, True))
def submit_twice() -> tuple[int, int, bool]:
    """The same request again.

    A client that got no answer may ask again. With the same Idempotency-Key it gets the task that is there.
    """
    key = {"Idempotency-Key": f"story-{time.time_ns()}"}
    first, again = (ask("POST", "/tasks", PROMPT, **key) for _ in range(2))
    return first[0], again[0], first[1]["id"] == again[1]["id"]


@story.step(expect=lambda value: value[0] == 422 and "max_tokens='many'" in value[1])
def bad_request() -> tuple[int, str]:
    """A request that cannot be.

    The answer names the field, its value and what was expected. Nothing is kept.
    """
    code, answer = ask("POST", "/tasks", PROMPT | {"max_tokens": "many"})
    return code, answer["detail"]


@story.step(
    expect=lambda value: (
        value[0] == "pending" and value[1].startswith("The broker") and value[2:] == ("completed", 1)
    )
)
def broker_away() -> tuple[str, str, str, int]:
    """The broker does not answer.

    The task is kept, and the answer says what it waits for. When the broker is back, the message is sent,
    and the task runs once.
    """
    with frozen_broker():
        _, task = ask("POST", "/tasks", PROMPT)
        path = f"/tasks/{task['id']}"
        waiting = wait_for("the note", lambda: (now := ask("GET", path)[1])["note"] and now)
    done = ended(task["id"])
    return waiting["status"], waiting["note"], done["status"], done["runs"]


@story.step(expect=("cancelled", 0, "completed", 1))
def cancel_and_replay() -> tuple[str, int, str, int]:
    """Cancel, and run again.

    A task that waits is cancelled at once: its message, if there is one, finds a row that wants nothing.
    Run again, it has the same id.
    """
    with frozen_broker():
        _, task = ask("POST", "/tasks", PROMPT)
        _, cancelled = ask("POST", f"/tasks/{task['id']}/cancel")
    ask("POST", f"/tasks/{task['id']}/replay")
    done = ended(task["id"])
    return cancelled["status"], cancelled["runs"], done["status"], done["runs"]


@contextmanager
def api() -> Iterator[None]:
    """Serve the API from a thread for the time of a block."""
    server = uvicorn.Server(uvicorn.Config("api.app:app", log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    with api():
        story.main()
