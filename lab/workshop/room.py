"""What a check works with: a broker of its own, workers with the learner's file, and what they did."""

import ast
import contextlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

from celery import signature
from celery.canvas import Signature
from celery.result import AsyncResult, ResultBase, result_from_tuple
from celery.states import READY_STATES

from celery_app import app
from lab import evidence
from lab.notebook import use_folders
from lab.processes.connection import SandboxError
from lab.runs import FINAL, Run
from lab.sandbox import Broker, Sandbox, Worker
from lab.timeline import Timeline
from lab.waiting import wait_for
from lab.workshop.forks import Forked, children
from lab.workshop.program import serve
from lab.workshop.verdicts import NO_START, OUT_OF_MEMORY, TIMED_OUT, WRONG, Wrong
from settings import RESULT_DATABASE, settings

__all__ = ["Outcome", "Room", "Wrong"]

ANSWER_SECONDS = 5.0
DEATH_SECONDS = 8.0
UNSEEN_SECONDS = 0.4  # how long to wait for the first event of a task whose end is stored already
WORKER = "lab.workshop.learner"
USUAL: dict[str, Any] = {"concurrency": 1, "profile": "drill", "include": [WORKER]}
Value = TypeVar("Value")


class Outcome:
    """How a task ended: its state, its value, its error as text, and its runs."""

    def __init__(self, result: AsyncResult, runs: list[Run]) -> None:
        self.id = result.id
        self.state = result.state
        self.value: Any = result.result if self.state == "SUCCESS" else None
        self.error = "" if self.state == "SUCCESS" else repr(result.result)
        self.traceback = result.traceback or ""
        self.runs = runs

    def __str__(self) -> str:
        runs = f"{len(self.runs)} run{'s' if len(self.runs) != 1 else ''}"
        what = repr(self.value) if self.state == "SUCCESS" else self.error
        return f"{self.state}, {what}, after {runs}"


class Room:
    """A room for one check. It is empty at the beginning: no message, no result, no worker.

    `ahead`: begin to start the usual worker now. It waits for the learner's file.
    """

    def __init__(self, folder: Path, *, ahead: bool = True) -> None:
        self.folder = folder / "exercise"
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("data", "state"):
            (self.folder / name).mkdir(parents=True)
        self.printed_file = self.folder / "printed"
        self.snapshot = self.folder / "source.py"
        self._prepare_environment(folder)
        self.sandbox = Sandbox(folder=folder)
        self.program = Forked(serve)  # before there are threads
        self.tasks: dict[str, str] = {}
        self.names: list[str] = []
        self.source = b""
        self._workers: dict[str, Worker] = {}
        self._may_take_ahead = ahead
        self.kept: dict[str, Any] = {}  # what a check keeps from one task for the next

    def _prepare_environment(self, folder: Path) -> None:
        use_folders(self.folder / "data", self.folder / "state")
        os.environ |= {"SANDBOX_DIR": str(folder), "EXERCISE_FOLDER": str(self.folder)}
        os.environ |= {"EXERCISE_SOURCE": str(self.snapshot), "EXERCISE_PRINTED": str(self.printed_file)}
        settings.sandbox_dir = folder
        vars(settings).pop("sandbox_folder", None)
        app.conf.update(broker_url=settings.broker_url, result_backend=settings.result_backend)

    def __enter__(self) -> Self:
        self.sandbox.open()
        self.broker.client().flushall()
        for kind in ("mail/*", "mail-faults/*", "mail.log"):
            for path in self.sandbox.folder.glob(kind):
                path.unlink()
        if self._may_take_ahead:
            self._begin_worker()
        self.timeline = Timeline()
        self.timeline.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.timeline.__exit__()
        self.program.end()

    def _begin_worker(self) -> None:
        """Start the usual worker ahead of the check. It waits for the learner's file: see learner.py."""
        self._begin = self.folder / "begin"
        os.mkfifo(self._begin)
        self._ahead: Worker | SandboxError | None = None
        self._starter = threading.Thread(target=self._start_ahead, daemon=True)
        self._starter.start()

    def _start_ahead(self) -> None:
        other = Sandbox(folder=self.sandbox.folder)  # a connection of its own: this one waits
        try:
            other.open()
            environment = {"EXERCISE_BEGIN": str(self._begin)}
            self._ahead = other.start_worker(["basic"], "exercise", environment=environment, **USUAL)
        except SandboxError as error:
            self._ahead = error

    @property
    def broker(self) -> Broker:
        """The broker of this room."""
        return self.sandbox.broker

    # --- the learner's file ---

    def load(self, source: bytes, shown_as: str) -> None:
        """Load the learner's file. Raises `Wrong` if it does not load."""
        self.source = source
        self.snapshot.write_bytes(source)
        os.environ["EXERCISE_FILE"] = shown_as
        answer = self._ask(
            "loaded your file",
            "load",
            source=str(self.snapshot),
            shown_as=shown_as,
            printed=str(self.printed_file),
        )
        if "error" in answer:
            raise Wrong(
                "loaded your file, as a worker does when it starts",
                answer["error"],
                "a worker with this file does not start, so no task of it can run",
                kind=answer["kind"],
            )
        self.tasks, self.names = answer["tasks"], answer["names"]

    def _take_ahead(self) -> Worker:
        """Let the worker that was started ahead go on, and return it when it is ready."""
        while self._starter.is_alive():  # until it reads, or has failed
            with contextlib.suppress(OSError):
                fifo = os.open(self._begin, os.O_WRONLY | os.O_NONBLOCK)
                os.write(fifo, os.fsencode(os.environ["EXERCISE_FILE"]))
                os.close(fifo)
                break
            time.sleep(0.001)
        self._starter.join()
        if isinstance(self._ahead, SandboxError):
            raise self._ahead
        assert self._ahead
        return self._ahead

    def task(self, function: str) -> str:
        """Return the name of the task that this function is. Raises `Wrong` if it is none."""
        if function not in self.tasks:
            found = ", ".join(self.tasks) or "no task"
            is_there = function in self.names
            raise Wrong(
                f"looked for the task {function} in your file",
                f"{function} is there, but is not a task" if is_there else f"your file has {found}",
                "a function becomes a task by the line @app.task above it"
                if is_there
                else "a worker can only run what the file defines: was it removed, renamed or commented out?",
            )
        return self.tasks[function]

    def call(self, function: str, *args: Any, seconds: float = ANSWER_SECONDS, **kwargs: Any) -> Any:
        """Call a function of the learner's file, in a program of its own, and return what it returns.

        A result or a canvas comes back as one. Raises `Wrong` if it raises, or does not return in time.
        """
        return self._called(f"called {function}({_shown(args, kwargs)})", function, args, kwargs, seconds)

    def start(self, function: str, *args: Any) -> Any:
        """Call a function that returns a canvas, send that, and return its result."""
        did = f"called {function}({_shown(args, {})}), and sent the canvas that it returned"
        result = self._called(did, function, args, {}, send=True)
        if not isinstance(result, ResultBase):
            raise Wrong(did, f"it returned {result!r}", "this is no canvas")
        return result

    def sent(self, function: str, *args: Any) -> AsyncResult:
        """Call a function that sends a task, and return the result of that task.

        Raises `Wrong` if it returns something else.
        """
        did = f"called {function}({_shown(args, {})})"
        result = self._called(did, function, args, {})
        if isinstance(result, Signature):
            raise Wrong(did, f"it returned the signature {result!r}", "nothing was sent: .delay() sends it")
        if not isinstance(result, AsyncResult):
            means = "return what sending gives back: whoever sends wants to find the result"
            raise Wrong(did, f"it returned {result!r}", means)
        return result

    def _called(
        self,
        did: str,
        function: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        seconds: float = ANSWER_SECONDS,
        *,
        send: bool = False,
    ) -> Any:
        if function not in self.names:
            raise Wrong(
                f"looked for {function} in your file",
                f"it has {', '.join(self.names) or 'no name'}",
                "the exercise needs this name: was it removed, renamed or commented out?",
            )
        answer = self._ask(did, "call", seconds, name=function, arguments=repr((args, kwargs)), send=send)
        if "error" in answer:
            kind = answer["kind"] if answer["kind"] == OUT_OF_MEMORY else WRONG
            means = "it raised, where it should return"
            if "unsent" in answer:
                means = (
                    "this canvas cannot be sent: each part of it is a signature, task.s(…), "
                    "with the arguments that the step before does not give"
                )
            raise Wrong(did, answer["error"], means, kind=kind)
        if "eager" in answer:
            raise Wrong(
                did, "no message was sent", "the task was run in this program: send it, and a worker runs it"
            )
        if "sent" in answer:
            means = "return the canvas, and send nothing: whoever calls this function sends it"
            names = ", ".join(dict.fromkeys(answer["sent"]))
            raise Wrong(f"called {function}({_shown(args, kwargs)})", f"it has sent {names} itself", means)
        if "result" in answer:
            return result_from_tuple(answer["result"], app)  # type: ignore[arg-type] # a stub's mistake
        if "canvas" in answer:
            return signature(answer["canvas"], app=app)
        return answer["value"]

    def wait_for(self, result: Any, seconds: float = ANSWER_SECONDS) -> list[Run]:
        """Wait until a canvas has ended, with all that followed from it, and return its runs."""
        with contextlib.suppress(TimeoutError):
            self.timeline.wait_for(result, seconds)
        return self.runs()

    def move(self, zone: str) -> None:
        """Let the program live in another time zone."""
        self._ask("moved the program", "move", zone=zone)

    def listen(self) -> Any:
        """Listen to what is stored in the result backend from now on. `stored` tells it."""
        listener = self.broker.client(RESULT_DATABASE).pubsub()  # type: ignore[no-untyped-call]
        listener.psubscribe("celery-task-meta-*")
        listener.get_message(timeout=1)
        return listener

    def stored(self, listener: Any, task_id: str) -> list[dict[str, Any]]:
        """Return each state of a task that was stored since `listen`, in order."""
        found = []
        while message := listener.get_message(timeout=0.02):
            if message["channel"].decode().endswith(task_id):
                found.append(json.loads(message["data"]))
        return found

    def try_call(self, function: str, *args: Any, **kwargs: Any) -> str:
        """Call a function that should raise, and return the name of its error, or "" if it raises none."""
        did = f"called {function}({_shown(args, kwargs)})"
        answer = self._ask(did, "call", name=function, arguments=repr((args, kwargs)))
        return str(answer.get("name", ""))

    def look(self, name: str) -> Any:
        """Return a value of the learner's file."""
        if name not in self.names:
            raise Wrong(f"looked for {name} in your file", "it is not there", "the exercise needs this name")
        return self._ask(f"read {name}", "look", name=name)["value"]

    def option(self, function: str, option: str) -> Any:
        """Return an option of a task, such as max_retries."""
        self.task(function)
        return self._ask(f"read the options of {function}", "option", name=function, option=option)["value"]

    def calls(self) -> set[str]:
        """Return the names that the learner's file calls: a hint at why something was seen, never a proof."""
        calls = (node.func for node in ast.walk(ast.parse(self.source)) if isinstance(node, ast.Call))
        return {ast.unparse(call).rpartition(".")[2] for call in calls}

    def _ask(self, did: str, what: str, seconds: float = ANSWER_SECONDS, **fields: Any) -> dict[str, Any]:
        self.program.link.send({"do": what, **fields})
        try:
            answer: dict[str, Any] = self.program.link.receive(seconds)
        except TimeoutError:
            raise Wrong(
                did,
                f"it did not return within {seconds:g} seconds",
                "something in it never ends, or waits for what never comes",
                kind=TIMED_OUT,
            ) from None
        except EOFError:
            raise Wrong(did, "the program ended", "something in your file ends its process") from None
        return answer

    # --- workers and messages ---

    def worker(self, queues: Sequence[str] = ("basic",), name: str = "exercise", **options: Any) -> Worker:
        """Return a worker with the learner's file: the one that runs, or a new one.

        Raises `Wrong` if it does not start.
        """
        if name not in self._workers:
            is_usual = list(queues) == ["basic"] and not options and self._may_take_ahead
            try:
                if is_usual:
                    self._may_take_ahead = False
                    self._workers[name] = self._take_ahead()
                else:
                    self._workers[name] = self.sandbox.start_worker(queues, name, **USUAL | options)
            except SandboxError as error:
                raise Wrong(
                    "started a worker with your file", str(error)[-1500:], "it did not start", kind=NO_START
                ) from None
        return self._workers[name]

    def end_worker(self, name: str = "exercise") -> None:
        """Kill a worker, if it was started."""
        if name in self._workers:
            self._workers.pop(name).kill()

    def send(self, function: str, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """Send a task of the learner's file, by its name, and return its result."""
        name = self.task(function)
        return app.send_task(name, args, kwargs, **{"queue": "basic"} | (options or {}))

    def run(self, function: str, *args: Any, seconds: float = ANSWER_SECONDS, **kwargs: Any) -> Outcome:
        """Send a task to a worker, and return how it ended."""
        self.worker()
        did = f"sent {function}({_shown(args, kwargs)}) to a worker"
        return self.outcome(did, self.send(function, *args, **kwargs), seconds)

    def outcome(self, did: str, result: AsyncResult, seconds: float = ANSWER_SECONDS) -> Outcome:
        """Wait for the end of a task. Raises `Wrong` if it does not come, or if memory ran out."""
        if not isinstance(result, AsyncResult):
            means = "no task comes last: a group alone has a result for each of its members"
            raise Wrong(did, f"it has {len(result)} results, and not one", means)
        deadline = time.monotonic() + seconds
        while result.state not in READY_STATES:
            is_over = time.monotonic() > deadline
            # Celery may take 5 seconds to notice that a pool child has ended.
            if is_over and not (self._has_dead_child(result) and time.monotonic() < deadline + DEATH_SECONDS):
                self._say_never_ended(did, result, seconds)
            time.sleep(0.005)
        outcome = Outcome(result, self.runs(result.id))
        if outcome.error.startswith("MemoryError"):
            raise Wrong(did, str(outcome), "the task wants more memory than it may have", kind=OUT_OF_MEMORY)
        return outcome

    def _has_dead_child(self, result: AsyncResult) -> bool:
        """Tell whether a pool child has ended, and the state of its task does not say so yet."""
        states = [state for worker in self._workers.values() for state in children(worker.pid).values()]
        return "Z" in states and "WorkerLostError" not in repr(result.result)

    def _say_never_ended(self, did: str, result: AsyncResult, seconds: float) -> NoReturn:
        found = self.runs(result.id, seconds=0.1)
        runs = evidence.started(found)
        lost = [run.detail for run in found if "WorkerLostError" in run.detail]
        if lost or "WorkerLostError" in repr(result.result):
            means = "the task ends the process that runs it, each time: by sys.exit, os._exit or a crash"
            raise Wrong(did, f"it was tried {runs} times: {(lost or [repr(result.result)])[0]}", means)
        if result.state == "PENDING" and any(run.outcome in FINAL for run in found):
            means = "its end was not stored: that is what ignore_result does"
            raise Wrong(did, "a worker has run it to its end, and its state is PENDING", means)
        means = "the task never ends: it waits for ever, or goes round in a loop"
        if not runs:
            means = "no worker has begun it"
        elif result.state == "RETRY":
            means = "it is tried again and again, or waits too long before it is: bound the retries"
        raise Wrong(
            did,
            f"after {seconds:g} seconds its state was {result.state}; it had begun {runs} times",
            means,
            kind=TIMED_OUT,
        )

    def value(self, function: str, *args: Any, **kwargs: Any) -> Any:
        """Run a task, and return its value. Raises `Wrong` if it fails."""
        outcome = self.run(function, *args, **kwargs)
        if outcome.state != "SUCCESS":
            raise Wrong(
                f"sent {function}({_shown(args, kwargs)}) to a worker",
                f"{outcome.state}: {outcome.error}",
                "the task failed" + _where(str(outcome.traceback)),
            )
        return outcome.value

    # --- what happened ---

    def runs(self, task_id: str | None = None, *, seconds: float = 2, name: str = "") -> list[Run]:
        """Return the runs that were seen: of one task, of all with a function's name, or all."""
        if task_id:
            is_known = any(run.task_id == task_id and run.received for run in self.timeline.runs)
            seconds = seconds if is_known else min(seconds, UNSEEN_SECONDS)
            with contextlib.suppress(TimeoutError):
                ended = self.timeline.wait_for(task_id, seconds=seconds)
                return [run for run in ended if run.received is not None]
        found = [run for run in self.timeline.runs if run.received is not None]
        wanted = self.tasks.get(name, name)
        return [
            run
            for run in found
            if (not task_id or run.task_id == task_id) and (not name or run.name == wanted)
        ]

    def effects(self, what: str = "") -> list[dict[str, Any]]:
        """Return what services of `lab.workshop.services` were asked to do."""
        path = self.folder / "effects"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [effect for effect in found if not what or effect["what"] == what]

    def make_tables(self) -> None:
        """Make the tables of the course in the database of this room."""
        from services.database import engine
        from services.models import Base

        Base.metadata.create_all(engine())

    def away(self, service: str, times: int) -> None:
        """Let a service be away for its next calls."""
        (self.folder / "turns").write_text(json.dumps({service: times}))
        (self.folder / "effects").unlink(missing_ok=True)

    def wait(self, what: str, look: Callable[[], Value], seconds: float = ANSWER_SECONDS) -> Value | None:
        """Wait until `look` gives something true, and return that, or None after `seconds`."""
        try:
            return wait_for(what, look, seconds)
        except TimeoutError:
            return None

    def printed(self) -> str:
        """Return what the learner's file has printed."""
        return self.printed_file.read_text() if self.printed_file.exists() else ""


def _shown(args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    shown = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
    return ", ".join(text if len(text) < 60 else text[:57] + "…" for text in shown)


def _where(traceback: str) -> str:
    """Return in which line of the learner's file an error came up."""
    file = re.escape(os.environ["EXERCISE_FILE"])
    lines = re.findall(rf'File "{file}", line (\d+), in (\w+)', traceback)
    return f" in line {lines[-1][0]} of your file, in {lines[-1][1]}" if lines else ""
