"""Tasks that only tests run: they leave marks in files, wait for files, and kill their own process.

A worker loads them with `include=["tests.helper_tasks"]`. The variable TEST_CONF (JSON) changes the app's
settings in that worker. They go to the default queue, basic.
"""

import json
import os
import signal
import time
from datetime import datetime
from pathlib import Path

from celery import Task
from celery.exceptions import SoftTimeLimitExceeded

from celery_app import app
from services.simulation import simulate_waiting
from tasks.base import AsyncTask
from tasks.basic_tasks import add

app.conf.update(json.loads(os.environ.get("TEST_CONF", "{}")))


@app.task
def mark(path: str, text: str = "x") -> None:
    """Append a line to a file."""
    with Path(path).open("a") as file:
        file.write(f"{text}\n")


@app.task
def mark_and_wait(path: str, release: str) -> str:
    """Append the process id to `path`, then wait until the file `release` exists."""
    mark(path, str(os.getpid()))
    while not Path(release).exists():
        time.sleep(0.02)
    return "released"


@app.task
def kill_own_process(path: str) -> None:
    """Leave a mark, then end the pool child as a crash would."""
    mark(path)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def process_id() -> int:
    """Return the id of the pool child."""
    return os.getpid()


@app.task
def hang(path: str) -> None:
    """Work for ever and do not listen to the soft time limit."""
    while True:
        try:
            time.sleep(600)
        except SoftTimeLimitExceeded:
            mark(path, "told to stop")


@app.task
def type_names(*values: object) -> list[str]:
    """Return the name of each value's type, for a dictionary with the type of its keys."""
    return [
        f"dict of {type(next(iter(value))).__name__}" if isinstance(value, dict) else type(value).__name__
        for value in values
    ]


@app.task(base=AsyncTask, bind=True, max_retries=2)
async def retry_twice(self: AsyncTask) -> int:
    """Retry, from an async body, until there is no retry left. Return the number of retries."""
    await simulate_waiting(0.01)
    if self.request.retries < 2:
        raise self.retry(countdown=0.05)
    return int(self.request.retries)


@app.task(base=AsyncTask)
async def fail_in_the_loop(reason: str) -> None:
    """Raise ValueError from an async body."""
    await simulate_waiting(0.01)
    raise ValueError(reason)


@app.task(bind=True)
def replace_itself(self: Task) -> None:
    """Have another task do the work, under the same id."""
    raise self.replace(add.si(1, 2))


@app.task(bind=True)
def retry_at(self: Task, time: str) -> None:
    """Retry at a time."""
    raise self.retry(eta=datetime.fromisoformat(time))
