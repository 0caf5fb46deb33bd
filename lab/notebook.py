"""What the notebooks share: a sandbox of their own, and the comparison of a prediction with what happened."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

from celery_app import app
from lab.sandbox import Sandbox, Worker, connect
from settings import settings

Value = TypeVar("Value")


def open_sandbox() -> Sandbox:
    """Start an empty broker for this notebook alone, point the app to it, and return the sandbox.

    Workers of other terminals and notebooks do not see its messages, and a Redis of yours stays untouched.
    It ends with `close()`, or with the notebook's kernel.
    Raises `SandboxError` if it does not start.
    """
    folder = settings.sandbox.with_name(f"{settings.sandbox.name}-{os.getpid()}")
    if earlier := connect(folder):  # this cell runs again: begin anew
        earlier.stop()
        earlier.close()
    sandbox = Sandbox(folder=folder)
    sandbox.open()
    os.environ |= {"CELERY_BROKER_URL": "", "CELERY_RESULT_BACKEND": ""}  # Celery prefers them to app.conf
    app.conf.update(broker_url=sandbox.broker.url, result_backend=sandbox.broker.result_backend)
    return sandbox


def compare(predicted: object, happened: object) -> None:
    """Print the prediction beside what happened. Capitals do not count, and 3 is the same as "3"."""
    is_right = str(predicted).strip().casefold() == str(happened).casefold()
    print(f"You predicted: {predicted}")
    print(f"What happened: {happened}")
    print("Right." if is_right else "Not so. Read on to see why.")


def wait_for(what: str, look: Callable[[], Value], seconds: float = 15) -> Value:
    """Call `look` until it gives something true, and return that.

    Raises `TimeoutError` that names `what` after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (value := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} seconds")
        time.sleep(0.01)
    return value


def log_lines(worker: Worker, task_id: str, until: str = "succeeded", times: int = 1) -> list[str]:
    """Return the lines of the worker's log about one task, once `until` is in `times` of them.

    A result can arrive a moment before its line in the log.
    """

    def look() -> list[str]:
        lines = [line for line in worker.log.read_text().splitlines() if task_id in line]
        return lines if sum(until in line for line in lines) >= times else []

    return wait_for(f"{times} x {until!r} for task {task_id} in {worker.log}", look)
