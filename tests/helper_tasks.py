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
from services.redis_clients import client
from services.simulation import simulate_waiting
from services.task_runs import claim, heartbeats
from services.token_stream import RedisStreamPublisher
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
def write_when_released(task_id: str, folder: str) -> None:
    """Run a task record: write a token for each file 1, 2, 3 … in `folder`, and end at the file `end`."""
    run = claim(task_id)
    if run is None:
        return
    mark(f"{folder}/runs", str(os.getpid()))
    stream = RedisStreamPublisher(client(), task_id)
    stream.publish("restart")
    written: list[str] = []
    with heartbeats(run):
        while not Path(folder, "end").exists():
            if Path(folder, str(len(written) + 1)).exists():
                written.append(f"word-{len(written) + 1} ")
                stream.publish("token", text=written[-1])
            time.sleep(0.02)
    run.complete({"text": "".join(written)})
    stream.publish("end", status="completed")


@app.task
def fail_when_released(path: str, release: str) -> None:
    """Do as `mark_and_wait`, then fail."""
    mark_and_wait(path, release)
    raise ValueError("released")


@app.task
def call_at(path: str, moment: str, name: str, *arguments: object) -> object:
    """Leave a mark, then call the task with this name, here, at the moment that the file `moment` holds."""
    mark(path)
    while not Path(moment).exists():
        time.sleep(0.02)
    time.sleep(max(0, float(Path(moment).read_text()) - time.time()))
    return app.tasks[name](*arguments)


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


class StationAway(Exception):
    """An error whose `args` fit its class."""


class ReadingTooHigh(Exception):
    """An error whose class takes two values, and gives both to its `args`."""

    def __init__(self, station: str, reading: float) -> None:
        super().__init__(station, reading)


class ReadingRefused(Exception):
    """An error whose class takes two values, and gives one text to its `args`."""

    def __init__(self, station: str, reading: float) -> None:
        super().__init__(f"{station}: {reading}")


_ERRORS: list[type[Exception]] = [LookupError, StationAway, ReadingTooHigh, ReadingRefused]
ERRORS = {error.__name__: error for error in _ERRORS}


@app.task
def fail_with(name: str, *arguments: object) -> None:
    """Raise the error with this name."""
    raise ERRORS[name](*arguments)


@app.task
def echo(*values: object) -> list[str]:
    """Return how each value looks to Python where it has arrived."""
    return [repr(value) for value in values]


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


@app.task
def tagged(*_: object, name: str = "") -> str:
    """Return `name`, whatever the step before has returned. Raises ValueError if it begins with "bad"."""
    if name.startswith("bad"):
        raise ValueError(name)
    return name


@app.task
def note_the_id(task_id: str) -> str:
    """Return the id: an error callback that Celery sends as a task."""
    return task_id


@app.task
def note_the_error(request: object, exc: object, traceback: object) -> None:
    """Do nothing: an error callback that Celery calls inside the worker."""


@app.task
def send_an_addition() -> None:
    """Send another task, and do not wait for it."""
    add.delay(1, 2)


@app.task(bind=True)
def retry_at(self: Task, time: str) -> None:
    """Retry at a time."""
    raise self.retry(eta=datetime.fromisoformat(time))
