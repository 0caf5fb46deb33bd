"""A canvas, read: its steps as Celery will send them, each with a label as one would type it.

Celery changes a canvas when it sends it. The steps here are those that run:

- a group with a step after it becomes the header of a chord, and that step its body;
- a group of one in a chain becomes its only member;
- a group in a group or in a header is flattened. Its members then come in the reverse order, except where
  the outermost group is the whole canvas.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from celery import Task
from celery.canvas import Signature, chain, chord, chunks, group
from celery.result import AsyncResult, GroupResult, ResultBase
from celery.utils.functional import maybe_list

from celery_app import TASK_MODULES, app

EXPRESSION_ERRORS = (
    SyntaxError,
    NameError,
    AttributeError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
)
NO_RESULTS = "gives no results to the next step: write .group()"
ONCE_FOR_EACH = "runs once for each member of the group before it"


@dataclass(eq=False)  # two steps that look the same are still two
class Step:
    """A part of a canvas: a task, or a chain, group or chord of more steps.

    `members` are the steps of a chain, the members of a group, or the header of a chord; `body` is the
    chord's. `then` are the callbacks and `on_error` the error callbacks. A task has its `signature`, and
    once it has run, its `state` and the `ids` under which it ran: an error callback may run for several
    tasks. `sent` are tasks that it has sent itself, beside the canvas.
    """

    kind: str
    label: str
    signature: Any = None
    note: str = ""
    state: str = ""
    ids: list[str] = field(default_factory=list)
    members: list["Step"] = field(default_factory=list)
    body: "Step | None" = None
    then: list["Step"] = field(default_factory=list)
    on_error: list["Step"] = field(default_factory=list)
    sent: list["Step"] = field(default_factory=list)

    @property
    def parts(self) -> list["Step"]:
        """Its members, and its body."""
        return [*self.members, *([self.body] if self.body else [])]

    def tasks(self) -> Iterator["Step"]:
        """Give the tasks in it, in the order of the canvas, without callbacks and what they have sent."""
        if self.kind == "task":
            yield self
        for part in self.parts:
            yield from part.tasks()

    def everything(self) -> Iterator["Step"]:
        """Give it and all steps in it and around it, callbacks too."""
        yield self
        for part in (*self.parts, *self.then, *self.on_error, *self.sent):
            yield from part.everything()


def canvas_of(expression: str) -> Signature:
    """Return the canvas that a learner has typed: `fetch_data.s("north") | process_item.s()`.

    It may use the project's tasks by their function's name, and chain, group and chord.
    Raises `ValueError` if the expression does not work, and `TypeError` if its value is no canvas.
    """
    app.loader.import_default_modules()
    names = {task.__name__: task for task in app.tasks.values() if task.__module__ in TASK_MODULES}
    try:
        # It runs what its author may run anyway: a learner in a terminal of their own, as in `python -c`.
        canvas = eval(expression, {**names, "chain": chain, "group": group, "chord": chord})  # noqa: S307
    except EXPRESSION_ERRORS as error:
        raise ValueError(
            f"{expression!r} does not work: {type(error).__name__}: {error}. "
            f"Use chain, group, chord and the tasks {', '.join(sorted(names))}."
        ) from error
    steps_of(canvas)
    return canvas


def steps_of(canvas: Any) -> Step:
    """Return the steps of a canvas. It leaves the canvas as it is.

    Raises `TypeError` if it is none, or if a part of it is no signature, or a chord has no body.
    """
    steps = _parse(_signature(canvas), outermost=True)
    known: dict[Any, Step] = {}
    for step in steps.everything():  # an error callback of many tasks is one step
        step.on_error = [known.setdefault(_look(callback), callback) for callback in step.on_error]
    return steps


def _look(step: Step) -> Any:
    """Return what a step looks like, to compare it with others."""
    callbacks = (step.then, step.on_error, step.parts)
    return step.kind, step.label, tuple(tuple(map(_look, steps)) for steps in callbacks)


# --- from signatures to steps -----------------------------------------------------------------------------


def _signature(value: Any) -> Any:
    """Return a part of a canvas, which may be a dictionary: a canvas that came as JSON."""
    if isinstance(value, Task):
        raise TypeError(f"{_name(value.name)} is a task and not a signature. Write {_name(value.name)}.s(…)")
    if isinstance(value, dict) and not isinstance(value, Signature) and "task" in value:
        return Signature.from_dict(value)
    if not isinstance(value, Signature):
        raise TypeError(
            f"{_short(value)} is a {type(value).__name__} and not a canvas. "
            "Write task.s(…), or chain, group or chord of such."
        )
    return value


def _parse(signature: Any, *, outermost: bool = False) -> Step:
    step = _parse_part(signature, outermost)
    step.then = _callbacks(signature, "link")
    step.on_error = _callbacks(signature, "link_error")
    return step


def _parse_part(signature: Any, outermost: bool) -> Step:
    match signature.get("subtask_type") or signature.task:
        case "chain":
            return Step("chain", "chain", members=_chained([_signature(task) for task in signature.tasks]))
        case "group":
            return _group(signature.tasks, reverse=not outermost)
        case "celery.chunks" if outermost:
            whole: Any = chunks.from_dict(signature)
            parts = whole.group()
            return Step("group", f"{len(parts)} chunks", members=[_parse(part) for part in parts.tasks])
        case "chord":
            return _chord(signature)
        case _:
            return Step("task", _label(signature), signature)


def _group(tasks: Iterable[Any], *, reverse: bool) -> Step:
    members = [_parse(task) for task in _flattened(tasks, reverse)]
    return Step("group", f"group of {len(members)}", members=members)


def _chord(signature: Any) -> Step:
    if signature.body is None:
        raise TypeError("This chord has no body. Write chord(header, body.s(…))")
    header = signature.tasks  # a list, or a group once the chord has been frozen
    step = _group(header.tasks if isinstance(header, group) else header, reverse=True)
    return _with_body(step, _parse(_signature(signature.body)))


def _with_body(step: Step, body: Step) -> Step:
    """Make a group the header of a chord."""
    step.kind, step.label, step.body = "chord", f"chord header of {len(step.members)}", body
    return step


def _flattened(tasks: Iterable[Any], reverse: bool) -> Iterator[Any]:
    """Give the members of a group, and instead of each group in it the members of that."""
    for task in map(_signature, tasks):
        if task.task == "celery.group":
            inner = list(task.tasks)
            yield from _flattened(reversed(inner) if reverse else inner, reverse)
        elif task.task != "celery.chain" or task.tasks:  # Celery drops an empty chain
            yield task


def _chained(signatures: list[Any]) -> list[Step]:
    """Return the steps of a chain. A group takes the step after it as its body."""
    steps: list[Step] = []
    for signature in reversed(signatures):
        step = _parse(signature)
        if step.kind == "group":
            if not step.members and len(signatures) > 1:  # Celery skips an empty group
                continue
            if len(step.members) == 1:
                [step] = step.members
            elif steps:
                step = _with_body(step, steps.pop(0))
        if steps and signature.task == "celery.chunks":
            step.note = NO_RESULTS
        if steps and _ends_with_group(step):
            steps[0].note = ONCE_FOR_EACH
        steps.insert(0, step)
    return steps


def _ends_with_group(step: Step) -> bool:
    """Tell whether a chord ends with a group. Each member of that carries the rest of the chain."""
    return step.body is not None and (step.body.kind == "group" or _ends_with_group(step.body))


def _callbacks(signature: Any, option: str) -> list[Step]:
    found = maybe_list(signature.options.get(option)) or []
    return [_parse(_signature(callback)) for callback in found]


# --- labels -----------------------------------------------------------------------------------------------


def _label(signature: Any) -> str:
    """Return what one would type for this signature: `add.s(1, 2)`, or `add.si(1, 2)` if immutable."""
    if signature.task in ("celery.map", "celery.starmap", "celery.chunks"):
        items = len(list(signature.kwargs["it"]))
        each = f", {signature.kwargs['n']} each" if "n" in signature.kwargs else ""
        return f"{_name(signature.kwargs['task']['task'])}.{_name(signature.task)}(items: {items}{each})"
    arguments = [*map(repr, signature.args), *(f"{key}={value!r}" for key, value in signature.kwargs.items())]
    return f"{_name(signature.task)}.{'si' if signature.immutable else 's'}({', '.join(arguments)})"


def _name(task: str) -> str:
    return task.rpartition(".")[2]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


# --- results ----------------------------------------------------------------------------------------------


def lineage(result: ResultBase) -> list[ResultBase]:
    """Return the results that lead to `result`, oldest first, and `result` itself."""
    line = []
    node: ResultBase | None = result
    while node is not None:
        line.append(node)
        node = node.parent
    return line[::-1]


def task_ids(result: ResultBase) -> list[str]:
    """Return the task ids that a result knows, in the order of the canvas."""
    return list(dict.fromkeys(_ids(result)))  # members share their parents


def _ids(result: ResultBase) -> Iterator[str]:
    for node in lineage(result):
        if isinstance(node, GroupResult):
            for member in node.results or ():
                yield from _ids(member)
        elif isinstance(node, AsyncResult):
            yield str(node.id)


def last_ids(result: ResultBase) -> list[str]:
    """Return the ids of the tasks whose results a `get()` of `result` gives."""
    if isinstance(result, GroupResult):
        return [task_id for member in result.results or () for task_id in last_ids(member)]
    return [str(result.id)] if isinstance(result, AsyncResult) else []


def planned_ids(body: Any) -> Iterator[str]:
    """Give the ids of the tasks that are to follow, as the body of a message says: a chain, a chord."""
    if isinstance(body, dict):
        yield from [body["task_id"]] if isinstance(body.get("task_id"), str) else []
        body = body.values()
    elif not isinstance(body, list | tuple):
        return
    for part in body:
        yield from planned_ids(part)
