"""A canvas as a picture: before it is sent, and again with the state of each task after it ran.

    flow = fetch_data.s("north") | process_item.s()
    diagram(flow)                     # in a notebook: a picture
    print(diagram(flow).text())       # the same as text
    diagram(flow, flow.delay())       # with states

The picture is Mermaid text. JupyterLab and GitHub draw it. A label is what you would type:
`task.s()` takes the result of the step before, `task.si()` (immutable) does not.
"""

import itertools
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from celery.canvas import Signature, chain, chord, chunks, group, maybe_signature
from celery.result import AsyncResult, GroupResult, ResultBase
from celery.utils.functional import maybe_list
from rich.text import Text
from rich.tree import Tree

from celery_app import TASK_MODULES, app
from lab import console

SHOWN_MEMBERS = 8  # of a group; the others are summed up, and Mermaid stays below its limits
STYLES = {
    "SUCCESS": "fill:#d7f0d7,stroke:#2a7a2a",
    "FAILURE": "fill:#f6d0d0,stroke:#a02020,stroke-width:3px",
    "PENDING": "fill:#ffffff,stroke:#888888,stroke-dasharray:4",
}
# What delay() gives back of a chord knows only the last step of its body.
WHOLE_RESULT = "Pass its own, whole one: result = canvas.freeze(); canvas.delay(); diagram(canvas, result)"
EXPRESSION_ERRORS = (
    SyntaxError,
    NameError,
    AttributeError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
)

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 30
_short.maxlist = _short.maxtuple = _short.maxdict = 3


@dataclass(frozen=True)
class Step:
    """A part of a canvas: a task, or a chain, group or chord of more steps, or "more" that are summed up.

    `members` are the steps of a chain, the members of a group, or the header of a chord; `body` is the
    chord's. `then` are the callbacks and `on_error` the error callbacks. `state` is empty before a run.
    """

    kind: str
    label: str
    state: str = ""
    members: tuple["Step", ...] = ()
    body: "Step | None" = None
    then: tuple["Step", ...] = ()
    on_error: tuple["Step", ...] = ()

    def states(self) -> Iterator[str]:
        """Give the state of each task in it."""
        if self.kind == "task":
            yield self.state
        for step in (*self.members, *([self.body] if self.body else [])):
            yield from step.states()


@dataclass(frozen=True)
class Diagram:
    """The picture of a canvas: `mermaid` for the eye, `text()` for everywhere else."""

    root: Step

    @property
    def mermaid(self) -> str:
        """The picture as Mermaid text."""
        return _Mermaid(self.root).text()

    def text(self) -> str:
        """Return the picture as an indented list."""
        return console.as_text(_tree(self.root), width=200)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {
            "text/plain": self.text(),
            "text/markdown": f"```mermaid\n{self.mermaid}```",
            "text/vnd.mermaid": self.mermaid,
        }


def diagram(canvas: Signature, result: ResultBase | None = None) -> Diagram:
    """Return the picture of `canvas`. It sends nothing, and leaves the canvas as it is.

    `result` is what sending this canvas gave back: each task then shows its state of this moment. PENDING
    means that nothing is known: it has not run, or never will.
    Raises `TypeError` if `canvas` is no signature, and `ValueError` if `result` is of another canvas.
    """
    _checked(canvas)
    if result is None:
        return Diagram(_parse(canvas, itertools.repeat("")))
    states = iter([app.AsyncResult(task_id).state for task_id in dict.fromkeys(_task_ids(result))])
    try:
        root = _parse(canvas, states)
    except StopIteration:
        raise ValueError(f"result={result!r} has fewer tasks than the canvas. {WHOLE_RESULT}") from None
    if next(states, None):
        raise ValueError(f"result={result!r} has more tasks than the canvas. {WHOLE_RESULT}")
    return Diagram(root)


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
    return _checked(canvas)


def _checked(canvas: object) -> Signature:
    if not isinstance(canvas, Signature):
        raise TypeError(
            f"{_short.repr(canvas)} is a {type(canvas).__name__} and not a canvas. "
            "Write task.s(…), or chain, group or chord of such."
        )
    return canvas


def lineage(result: ResultBase) -> list[ResultBase]:
    """Return the results that lead to `result`, oldest first, and `result` itself."""
    line = []
    node: ResultBase | None = result
    while node is not None:
        line.append(node)
        node = node.parent
    return line[::-1]


def _task_ids(result: ResultBase) -> Iterator[str]:
    """Give the task ids in the order of the canvas. An id may come twice: members share their parents."""
    for node in lineage(result):
        if isinstance(node, GroupResult):
            for member in node.results or ():
                yield from _task_ids(member)
        elif isinstance(node, AsyncResult):
            yield str(node.id)


# --- from a signature to steps ----------------------------------------------------------------------------


def _parse(signature: Any, states: Iterator[str]) -> Step:
    """Return `signature` as steps; each task takes the next of `states`, in the order of the canvas."""
    links: dict[str, Any] = {
        "then": _parse_links(signature, "link"),
        "on_error": _parse_links(signature, "link_error"),
    }
    match signature.get("subtask_type") or signature.task:
        case "chain":
            return Step("chain", "chain", members=_parse_all(signature.tasks, states), **links)
        case "group":
            members = _parse_all(signature.tasks, states)
            return Step("group", f"group of {len(members)}", members=_summed_up(members), **links)
        case "celery.chunks":
            whole: Any = chunks.from_dict(signature)
            members = _parse_all(whole.group().tasks, states)
            return Step("group", f"{len(members)} chunks", members=_summed_up(members), **links)
        case "chord":
            header = signature.tasks  # a list, or a group once the chord has been frozen
            members = _parse_all(header.tasks if isinstance(header, group) else header, states)
            body = _parse(maybe_signature(signature.body), states)
            label = f"chord header of {len(members)}"
            return Step("chord", label, members=_summed_up(members), body=body, **links)
        case _:
            return Step("task", _label(signature), next(states), **links)


def _parse_all(signatures: Iterable[Any], states: Iterator[str]) -> tuple[Step, ...]:
    return tuple([_parse(maybe_signature(signature), states) for signature in signatures])


def _parse_links(signature: Any, option: str) -> tuple[Step, ...]:
    # Their tasks are not in the result of the canvas, so they have no state.
    return _parse_all(maybe_list(signature.options.get(option)) or [], itertools.repeat(""))


def _summed_up(members: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the first members, and one step that stands for the others."""
    if len(members) <= SHOWN_MEMBERS:
        return members
    shown, others = members[: SHOWN_MEMBERS - 1], members[SHOWN_MEMBERS - 1 :]
    counts = Counter(state for step in others for state in step.states() if state)
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    return (*shown, Step("more", f"… and {len(others)} more", told, others))


def _label(signature: Any) -> str:
    """Return what one would type for this signature: `add.s(1, 2)`, or `add.si(1, 2)` if immutable."""
    if signature.task in ("celery.map", "celery.starmap"):
        items = len(list(signature.kwargs["it"]))
        return f"{_name(signature.kwargs['task']['task'])}.{_name(signature.task)}(items: {items})"
    arguments = [
        *map(_short.repr, signature.args),
        *(f"{key}={_short.repr(value)}" for key, value in signature.kwargs.items()),
    ]
    return f"{_name(signature.task)}.{'si' if signature.immutable else 's'}({', '.join(arguments)})"


def _name(task: str) -> str:
    return task.rpartition(".")[2]


# --- from steps to Mermaid --------------------------------------------------------------------------------


class _Mermaid:
    """Writes one picture. An arrow to or from a group touches its frame: n members need no n arrows."""

    def __init__(self, root: Step) -> None:
        self.lines: list[str] = ["flowchart LR"]
        self.arrows: list[str] = []
        self.handlers: dict[Step, str] = {}  # one node for each error callback, however many tasks have it
        self.used: set[str] = set()
        self.numbers = itertools.count(1)
        self._draw(root, ())

    def text(self) -> str:
        """Return the lines as one text."""
        styles = [f"  classDef {state} {STYLES[state]}" for state in STYLES if state in self.used]
        return "\n".join([*self.lines, *self.arrows, *styles]) + "\n"

    def _draw(self, step: Step, handlers: tuple[Step, ...]) -> tuple[str, str]:
        """Write a step. Return the ids of the node where it begins and of the one where it ends.

        `handlers` are the error callbacks of the chains around it: they hold for each of its tasks.
        """
        handlers = (*handlers, *step.on_error)
        match step.kind:
            case "chain" if step.members:
                begin, end = self._draw_chain(step, handlers)
            case "group":
                begin = end = self._draw_frame(step, handlers)
            case "chord":
                assert step.body
                begin = self._draw_frame(step, ())
                body, end = self._draw(step.body, handlers)
                self.arrows.append(f"  {begin} --> {body}")
            case _:
                begin = end = self._node(step)
                for handler in handlers:
                    self.arrows.append(f'  {begin} -. "on error" .-> {self._handler(handler)}')
        for callback in step.then:
            begin_of_callback, _ = self._draw(callback, ())
            self.arrows.append(f'  {end} -- "then" --> {begin_of_callback}')
        return begin, end

    def _draw_chain(self, step: Step, handlers: tuple[Step, ...]) -> tuple[str, str]:
        ends = [self._draw(member, handlers) for member in step.members]
        for (_, before), (after, _) in itertools.pairwise(ends):
            self.arrows.append(f"  {before} --> {after}")
        return ends[0][0], ends[-1][1]

    def _draw_frame(self, step: Step, handlers: tuple[Step, ...]) -> str:
        if not step.members:  # Mermaid does not draw an empty frame
            return self._node(step)
        frame = f"g{next(self.numbers)}"
        self.lines.append(f'  subgraph {frame}["{_escape(step.label)}"]')
        for member in step.members:
            self._draw(member, handlers)
        self.lines.append("  end")
        return frame

    def _node(self, step: Step) -> str:
        node = f"n{next(self.numbers)}"
        label = "<br>".join(_escape(line) for line in (step.label, step.state) if line)
        style = ""
        if step.state in STYLES:
            self.used.add(step.state)
            style = f":::{step.state}"
        self.lines.append(f'  {node}["{label}"]{style}')
        return node

    def _handler(self, step: Step) -> str:
        if step not in self.handlers:
            self.handlers[step], _ = self._draw(step, ())
        return self.handlers[step]


def _escape(text: str) -> str:
    """Return `text` fit for a Mermaid label: signs with a meaning there become their number."""
    return "".join(f"#{ord(sign)};" if sign in '#"`<>&\\' else sign for sign in " ".join(text.split()))


# --- from steps to text -----------------------------------------------------------------------------------


def _tree(step: Step) -> Tree:
    tree = Tree(Text(f"{step.label}  [{step.state}]" if step.state else step.label))
    for member in step.members if step.kind != "more" else ():
        tree.add(_tree(member))
    for name, steps in (("body", [step.body] if step.body else []), ("then", step.then)):
        for linked in steps:
            tree.add(_named(name, linked))
    for handler in step.on_error:
        tree.add(_named("on error", handler))
    return tree


def _named(name: str, step: Step) -> Tree:
    tree = _tree(step)
    tree.label = Text(f"{name}: {tree.label}")
    return tree
