"""Checks a learner's file on real workers, each time in a process that is thrown away.

The program that checks keeps a sandbox: a broker, and a process that forks workers. For each check there is
a forked process that is ready before it is needed. It may be killed at any time, and its workers with it.
"""

import ast
import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Self

from kombu.exceptions import OperationalError
from redis import RedisError

import lab.evidence
import lab.faults
import lab.mail_server
import lab.timeline  # noqa: F401 - loaded before the fork
from celery_app import app
from lab.processes.connection import SandboxError
from lab.processes.server import answers
from lab.processes.worker import preload
from lab.sandbox import Sandbox
from lab.workshop import room, verdicts
from lab.workshop.forks import Forked, Link, begin_sandbox, kill_orphans
from lab.workshop.manifest import EXERCISES, Exercise, find, load, same_code
from lab.workshop.verdicts import PRINTED_LETTERS, Line, Verdict, Wrong

CHEATS = ("exercises", "lab.workshop.checker", "lab.workshop.room", "lab.workshop.manifest", "check")


class Checker:
    """Checks exercises, one after the other.

    `folder`: its sandbox, which has begun to start. `only_once`: nothing is prepared for a second check.
    `ahead`: each check has a worker before it begins. It is worth it where somebody waits.
    """

    def __init__(self, folder: Path, *, only_once: bool = False, ahead: bool = True) -> None:
        self.folder = folder
        self._only_once = only_once
        self._ahead = ahead
        self._next: Forked | None = None

    def __enter__(self) -> Self:
        ctypes.CDLL(None)  # all that is loaded before the fork need not be loaded after it
        self._sandbox = Sandbox(folder=self.folder)
        if not self._only_once:
            for _ in preload():
                pass
            app.loader.import_default_modules()
            gc.freeze()  # what is forked need not copy the memory of these objects
        self._sandbox.open()
        self.make_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_check()
        self._sandbox.close()

    def make_ready(self) -> None:
        """Clean up after the last check, and prepare the next one. A check does it first if need be."""
        if self._next:
            return
        try:
            self._sandbox.connection.start_server()
        except SandboxError:  # the sandbox has ended: begin a new one
            self._sandbox.close()
            self._sandbox = Sandbox(folder=self.folder)
            self._sandbox.open()
        self._next = Forked(self._wait_for_order)

    def check(self, exercise: Exercise, file: Path) -> Verdict:
        """Check a learner's file. Afterwards call `make_ready`, when there is time for it."""
        self.make_ready()
        assert self._next
        began = time.monotonic()
        deadline = began + exercise.seconds
        lines: list[Line] = []
        self._next.link.send({"id": exercise.id, "file": str(file)})
        try:
            while "line" in (answer := self._next.link.receive(max(0, deadline - time.monotonic()))):
                lines.append(Line(**answer["line"]))
        except TimeoutError:
            reason = f"The check did not end within {exercise.seconds:g} seconds."
            answer = {"kind": verdicts.TIMED_OUT, "reason": reason}
        except EOFError:
            answer = {"kind": verdicts.FAULT, "reason": "The process of the check has ended."}
        if answer["kind"] != verdicts.PASSED and not answers(self.folder / "broker.sock"):
            reason = "The broker of this check has ended. Check again: the next one gets a new broker."
            answer = {"kind": verdicts.BROKER_DOWN, "reason": reason}
        verdict = Verdict(exercise.id, lines=tuple(lines), seconds=time.monotonic() - began, **answer)
        self._end_check()
        return verdict

    def _end_check(self) -> None:
        """Kill what the check has started."""
        if self._next:
            self._next.end()
            self._next = None
        with contextlib.suppress(SandboxError):
            status = self._sandbox.connection.status()
            for worker in status.workers:
                self._sandbox.connection.end(worker.pid, signal.SIGKILL)
            kill_orphans({status.supervisor})

    def _wait_for_order(self, link: Link) -> None:
        self._sandbox.connection.disown()  # the sandbox must end with the parent
        try:
            with room.Room(self.folder, ahead=self._ahead) as here:
                order = link.receive()
                exercise = find(order["id"], load())
                for message in judge(here, exercise, Path(order["file"])):
                    link.send(message)
        except (OSError, RedisError, OperationalError, SandboxError) as error:
            link.send({"kind": verdicts.BROKER_DOWN, "reason": f"The broker of this check: {error}"})
        link.receive()  # until it is killed


def judge(here: room.Room, exercise: Exercise, file: Path) -> Iterator[dict[str, Any]]:
    """Check a file. Give the line of each numbered task, and at last the other fields of the verdict."""
    kinds = []
    rest: dict[str, Any] = {}
    try:
        source = file.read_bytes()
        check = exercise.load_check()
        _refuse_cheats(source, str(file))
        here.load(source, str(file))
    except Wrong as wrong:
        said = [f"{verdicts.LABELS[name]} {getattr(wrong, name)}" for name in ("did", "saw", "means")]
        yield {"kind": wrong.kind, "reason": "\n".join(said), "printed": here.printed()[:PRINTED_LETTERS]}
        return
    except (OSError, ValueError) as error:
        yield {"kind": verdicts.FAULT, "reason": str(error)}
        return
    for number, title in exercise.tasks().items():
        line = _line(number, title, getattr(check, f"task_{number}"), here)
        kinds.append(line.kind)
        yield {"line": line.__dict__}
        if line.kind in (verdicts.FAULT, verdicts.TIMED_OUT):
            break  # what comes next would say nothing of the learner's file
    kind = next((kind for kind in kinds if kind != verdicts.PASSED), verdicts.PASSED)
    if kind == verdicts.WRONG and same_code(source, exercise.stub.read_bytes()):
        kind = verdicts.NOT_ATTEMPTED
    if kind != verdicts.PASSED and here.timeline.runs:
        rest = {"timeline": here.timeline.text(width=80, rows=12), "timeline_html": here.timeline.html(12)}
    yield {"kind": kind, "printed": here.printed()[:PRINTED_LETTERS], **rest}


def _line(number: int, title: str, task: Callable[[room.Room], None], here: room.Room) -> Line:
    try:
        task(here)
    except Wrong as wrong:
        return Line(number, title, wrong.kind, wrong.did, wrong.saw, wrong.means, wrong.look)
    except (RedisError, OperationalError) as error:
        return Line(number, title, verdicts.BROKER_DOWN, saw=f"the broker did not answer: {error}")
    except Exception as error:  # noqa: BLE001 - a learner must not see our traceback
        place = traceback.extract_tb(error.__traceback__)[-1]
        at = next(
            (f for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith("check.py")), place
        )
        what = f"{type(error).__name__}: {error} ({at.filename}, line {at.lineno})"
        means = "the check itself went wrong, not your file. Please report this text."
        return Line(number, title, verdicts.FAULT, saw=what, means=means)
    return Line(number, title, verdicts.PASSED)


def _refuse_cheats(source: bytes, file: str) -> None:
    """Raise `Wrong` for a file that imports the check. Syntax errors are said when it is loaded."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        texts = [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
        if any(name == cheat or name.startswith(f"{cheat}.") for name in names for cheat in CHEATS) or any(
            ".author" in text or str(EXERCISES) in text for text in texts
        ):
            raise Wrong(
                f"read {Path(file).name}",
                f"line {getattr(node, 'lineno', '?')} uses the check or the solution",
                "the answer must be your own code: the check looks at what a worker does with it",
            )


# --- Many at once ----------------------------------------------------------------------------------------


def check_all(
    exercises: list[Exercise], file_of: Callable[[Exercise], Path], lanes: int
) -> Iterator[tuple[Exercise, Verdict]]:
    """Check exercises, `lanes` of them at a time. Give each with its verdict, as soon as it is there."""
    left = list(exercises)
    busy: dict[Link, tuple[Forked, Exercise]] = {}
    started = [Forked(partial(_serve_lane, lane)) for lane in range(min(lanes, len(left)))]
    try:
        for lane in started:
            _give(lane, left, file_of, busy)
        while busy:
            for link in select.select(list(busy), [], [])[0]:
                lane, exercise = busy.pop(link)
                yield exercise, Verdict.of(link.receive())
                _give(lane, left, file_of, busy)
    finally:
        for lane in started:
            lane.link.end.close()  # it then ends in good order, and its sandbox with it
        for lane in started:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(lane.pid, 0)


def _give(
    lane: Forked,
    left: list[Exercise],
    file_of: Callable[[Exercise], Path],
    busy: dict[Link, tuple[Forked, Exercise]],
) -> None:
    if left:
        exercise = left.pop(0)
        lane.link.send({"id": exercise.id, "file": str(file_of(exercise))})
        busy[lane.link] = lane, exercise


def _serve_lane(number: int, link: Link) -> None:
    with contextlib.suppress(EOFError):
        _serve(f"-{number}", iter(link.receive, None), lambda verdict: link.send(asdict(verdict)))


def _serve(lane: str, orders: Iterable[dict[str, str]], tell: Callable[[Verdict], None]) -> None:
    exercises = load()
    with Checker(begin_sandbox(lane), ahead=False) as checker:
        for order in orders:
            tell(checker.check(find(order["id"], exercises), Path(order["file"])))
            checker.make_ready()


def serve() -> None:
    """Check what standard input names, an exercise and a file as a line of JSON, and print each verdict."""
    _serve("", map(json.loads, sys.stdin), lambda verdict: print(verdict.as_json(), flush=True))


if __name__ == "__main__":
    serve()
