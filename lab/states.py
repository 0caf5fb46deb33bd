"""Which task of a canvas is in which state: by its result, or by the evidence of a run.

A result knows the tasks of a chain, a group or a chord, and less of what is nested deeper. It knows no
callback at all. Events know every task that ran, and by which other task it was sent. So the steps of a
canvas are found in them: a step of a chain was sent by the step before it, the body of a chord by a member
of the header, a callback by its task.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from celery.result import ResultBase
from celery.utils.saferepr import saferepr

from celery_app import app
from lab.canvas import Step, task_ids
from lab.runs import Run

PENDING = "PENDING"
NEVER_RAN = "never ran"
TRACE = (
    "Send it inside a timeline, and pass what ran: "
    "with Timeline() as timeline: result = canvas.delay(); runs = timeline.wait_for(result). "
    "Then diagram(canvas, result, runs)"
)


def by_result(steps: Step, result: ResultBase) -> None:
    """Give each task its state of this moment, by the order of the ids in `result`.

    Raises `ValueError` if `result` does not know all tasks of the canvas, or others.
    """
    tasks, ids = list(steps.tasks()), task_ids(result)
    if len(tasks) != len(ids):
        how = "fewer" if len(ids) < len(tasks) else "more"
        raise ValueError(f"result={result!r} has {how} tasks than the canvas. {TRACE}")
    for task, task_id in zip(tasks, ids, strict=True):
        found = app.AsyncResult(task_id)
        if found.name not in (None, task.signature.task):
            raise ValueError(f"result={result!r} has {found.name} instead of {task.label}. {TRACE}")
        task.ids, task.state = [task_id], found.state


def by_runs(steps: Step, result: ResultBase, runs: Sequence[Run]) -> None:
    """Give each task its state, by the runs of all its tasks, as `Timeline.wait_for` returns them.

    A task without a run says "never ran". What ran and has no place in the canvas becomes a part of it.
    """
    trace = _Trace(runs)
    trace.follow(steps, {""}, ())
    trace.add_others(steps)
    for step in steps.everything():
        step.state = _told([_state(task_id, trace.runs[task_id]) for task_id in step.ids])
    unseen = [task_id for task_id in task_ids(result) if task_id not in trace.runs]
    _never_ran([task for task in steps.tasks() if not task.ids], unseen)


def _state(task_id: str, run: Run) -> str:
    state = app.AsyncResult(task_id).state
    return run.outcome if state == PENDING else state  # it keeps no result, or not any more


def _told(states: list[str]) -> str:
    """Return the state of one task; of several, how many have which."""
    if len(states) == 1:
        return states[0]
    return ", ".join(f"{count} {state}" for state, count in Counter(states).items())


def _never_ran(tasks: list[Step], ids: list[str]) -> None:
    """Tell of each task without a run what the result backend says, where its id is known for certain."""
    known = ids if len(ids) == len(tasks) else [""] * len(tasks)
    for task, task_id in zip(tasks, known, strict=True):
        state = f"{app.AsyncResult(task_id).state}, " if task_id else ""
        task.state = f"{state}{NEVER_RAN}"


class _Trace:
    """Finds the tasks of a canvas among those that ran."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs: dict[str, Run] = {}  # the last run of each task
        self.free: dict[str, list[Run]] = defaultdict(list)  # by the task that sent it: its first run
        for run in runs:
            if run.task_id not in self.runs:
                self.free[run.parent_id].append(run)
            self.runs[run.task_id] = run

    def follow(self, step: Step, senders: set[str], handlers: Sequence[Step]) -> set[str]:
        """Find the tasks of a step, sent by one of `senders`. Return the ids of those with which it ends.

        `handlers` are the error callbacks of the chains around it: they hold for each of its tasks.
        """
        handlers = (*handlers, *step.on_error)
        match step.kind:
            case "chain":
                ends = senders
                for member in step.members:
                    ends = self.follow(member, ends, handlers)
            case "task":
                ends = self._find(step, senders)
                for handler in handlers:
                    self.follow(handler, ends or self._unseen(), ())
            case _:
                own = handlers if step.kind == "group" else ()
                ends = {end for member in step.members for end in self.follow(member, senders, own)}
                if step.body:
                    ends = self.follow(step.body, ends if step.members else senders, handlers)
        for callback in step.then:
            self.follow(callback, ends, ())
        return ends

    def _find(self, step: Step, senders: set[str]) -> set[str]:
        """Take the first free run that one of `senders` has sent and that fits the step."""
        fitting = [
            run for sender in senders for run in self.free.get(sender, ()) if run.name == step.signature.task
        ]
        if not fitting:
            return set()
        found = next((run for run in fitting if _has_arguments(run, step.signature)), fitting[0])
        self.free[found.parent_id].remove(found)
        step.ids.append(found.task_id)
        return {found.task_id}

    def _unseen(self) -> set[str]:
        """Return the senders that have not run themselves: the body of a chord whose header has failed."""
        return {sender for sender in self.free if sender and sender not in self.runs}

    def add_others(self, steps: Step) -> None:
        """Hang what is left under the task that has sent it, or under the whole canvas."""
        places = {task_id: step for step in steps.everything() for task_id in step.ids}
        left = sorted((run for runs in self.free.values() for run in runs), key=lambda run: run.times[0])
        for run in left:
            places[run.task_id] = Step("task", run.call, ids=[run.task_id])
        for run in left:
            places.get(run.parent_id, steps).sent.append(places[run.task_id])


def _has_arguments(run: Run, signature: Any) -> bool:
    """Tell whether a run has a signature's arguments: behind what the step before it has returned."""
    args, kwargs = _inside(_repr(signature.args)), _inside(_repr(signature.kwargs))
    given = _inside(run.args)
    same = given == args if signature.immutable else given.endswith(args)
    return same and _inside(run.kwargs) == kwargs


def _repr(value: object) -> str:
    return str(saferepr(value, app.amqp.argsrepr_maxsize))  # as Celery writes it into events


def _inside(text: str) -> str:
    """Return what is inside the brackets. A tuple is a list once it has been sent as JSON."""
    return text.translate(str.maketrans("()", "[]"))[1:-1].rstrip(", ")
