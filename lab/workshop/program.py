"""A process that has the learner's file loaded, as a web server or a script has: it sends tasks."""

import ast
import contextlib
import os
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from celery import Task
from celery.canvas import Signature
from celery.result import EagerResult, ResultBase
from celery.signals import before_task_publish
from kombu.exceptions import OperationalError
from redis import RedisError

from celery_app import app
from lab.workshop import learner
from lab.workshop.forks import Link
from lab.workshop.verdicts import NO_START, OUT_OF_MEMORY


def serve(link: Link) -> None:
    """Do what is asked through `link`, until it closes."""
    program = _Program()
    with contextlib.suppress(OperationalError, RedisError), app.producer_or_acquire() as producer:
        producer.connection.ensure_connection(max_retries=1)  # the first message need not wait for it
        app.backend.client.ping()  # type: ignore[attr-defined] # that of Redis has one
    while True:
        try:
            request = link.receive()
        except EOFError:
            return
        try:
            answer = getattr(program, request.pop("do"))(**request)
        except BaseException as error:  # noqa: BLE001 - it may be sys.exit, or anything else a learner raises
            kind = OUT_OF_MEMORY if isinstance(error, MemoryError) else NO_START
            answer = {"error": told(error, program.shown_as), "kind": kind, "name": type(error).__name__}
        try:
            link.send(answer)
        except (TypeError, ValueError):  # a dictionary with keys that JSON has not, say
            link.send({"value": repr(answer.get("value"))})


@contextlib.contextmanager
def _sent_by_now() -> Iterator[list[str]]:
    """Give a list that gets the names of the tasks that this program sends in the block."""
    names: list[str] = []

    def add(sender: str, **_: Any) -> None:
        names.append(sender)

    before_task_publish.connect(add)
    try:
        yield names
    finally:
        before_task_publish.disconnect(add)


class _Program:
    shown_as = ""
    module: ModuleType

    def load(self, source: str, shown_as: str, printed: str) -> dict[str, Any]:
        """Run the learner's file, and tell its names: those of tasks with the task's own name."""
        self.shown_as = shown_as
        self.module = learner.load(Path(source), shown_as, Path(printed))
        app.finalize()
        found = {
            name: value.name
            for name, value in vars(self.module).items()
            if isinstance(value, Task) and app.tasks[value.name].__module__ == learner.MODULE
        }
        return {"tasks": found, "names": [name for name in vars(self.module) if not name.startswith("_")]}

    def call(self, name: str, arguments: str, send: bool = False) -> dict[str, Any]:
        """Call a function of the learner's file, and send the canvas that it returns if that is wanted.

        With `send` the function must send nothing itself: what it has sent is the answer then.
        `arguments`: as Python writes them; JSON would change them.
        """
        args, kwargs = ast.literal_eval(arguments)
        with _sent_by_now() as sent:
            value = getattr(self.module, name)(*args, **kwargs)
        if send and sent:
            return {"sent": sent}
        if send and isinstance(value, Signature):
            try:
                value = value.delay()
            except Exception as error:  # noqa: BLE001 - whatever a part of the canvas raises
                return {"error": told(error, self.shown_as), "kind": NO_START, "unsent": True}
        if isinstance(value, EagerResult):
            return {"eager": True}
        if isinstance(value, ResultBase):
            return {"result": value.as_tuple()}  # type: ignore[attr-defined] # all of them have it
        if isinstance(value, Signature):
            return {"canvas": value}
        return {"value": value}

    def move(self, zone: str) -> dict[str, Any]:
        """Move to a time zone."""
        os.environ["TZ"] = zone
        time.tzset()
        return {}

    def look(self, name: str) -> dict[str, Any]:
        """Return a value of the learner's file."""
        return {"value": getattr(self.module, name)}

    def option(self, name: str, option: str) -> dict[str, Any]:
        """Return an option of a task, or None if it has no such option."""
        return {"value": getattr(getattr(self.module, name), option, None)}


def told(error: BaseException, shown_as: str) -> str:
    """Return an error with the lines of the learner's file that it came through, and of no other file."""
    if isinstance(error, SyntaxError) and error.filename == shown_as:
        return f"line {error.lineno}: {type(error).__name__}: {error.msg}\n{(error.text or '').rstrip()}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == shown_as]
    lines = [f"line {frame.lineno}, in {frame.name}" for frame in frames[-5:]]
    return "\n".join([*lines, "".join(traceback.format_exception_only(error)).strip()[:1500]])
