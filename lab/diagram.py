"""A canvas as a picture: before it is sent, and again with the state of each task after it ran.

    flow = fetch_data.s("north") | process_item.s()
    diagram(flow)                     # in a notebook: a picture
    print(diagram(flow).text())       # the same as text
    diagram(flow, flow.delay())       # with states
    diagram(flow, result, runs)       # with all that ran: runs = timeline.wait_for(result)

The picture is Mermaid text. JupyterLab and GitHub draw it. A label is what you would type:
`task.s()` takes the result of the step before, `task.si()` (immutable) does not.
"""

import html
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from celery.canvas import Signature
from celery.result import ResultBase
from rich.text import Text
from rich.tree import Tree

from lab import console
from lab.canvas import Step, canvas_of, lineage, steps_of
from lab.runs import Run
from lab.shorten import shortened
from lab.states import NEVER_RAN, by_result, by_runs

__all__ = ["Diagram", "canvas_of", "diagram", "lineage"]

SHOWN_STEPS = 8  # of a group or a chain; the others are summed up, and Mermaid stays below its limits
LABEL_LETTERS = 50
# Each has its colour of text, too: it is read on its own ground, in a light and in a dark page.
STYLES = {
    "SUCCESS": "fill:#d7f0d7,stroke:#2a7a2a,color:#123d12",
    "FAILURE": "fill:#f6d0d0,stroke:#a02020,stroke-width:3px,color:#5a0f0f",
    "PENDING": "fill:#ffffff,stroke:#888888,stroke-dasharray:4,color:#333333",
    "OTHER": "fill:#e8eef7,stroke:#4c78a8,color:#16293f",
}
# What a state is drawn as, if it has no style of its own. The small ones are of a task without a result.
STYLE_OF = {"succeeded": "SUCCESS", "failed": "FAILURE"}


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
        return console.as_text(_tree(self.root, _labels(self.root)), width=200)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        text = self.text()
        beside = f"<details><summary>The same as text</summary><pre>{html.escape(text)}</pre></details>"
        return {"text/plain": text, "text/markdown": f"```mermaid\n{self.mermaid}```\n\n{beside}"}


def diagram(
    canvas: Signature, result: ResultBase | None = None, runs: Sequence[Run] | None = None
) -> Diagram:
    """Return the picture of `canvas`, as Celery sends it. It sends nothing, and leaves the canvas as it is.

    `result` is what sending this canvas gave back: each task then shows its state of this moment. PENDING
    means that nothing is known: it has not run, or never will.
    `runs` is what `Timeline.wait_for(result)` returned. With it the picture holds all that ran, also
    callbacks and what tasks have sent themselves, and tells which tasks never ran.
    Raises `TypeError` if `canvas` is no canvas, and `ValueError` if `result` does not know all its tasks.
    """
    root = steps_of(canvas)
    if result is not None and runs is not None:
        by_runs(root, result, runs)
    elif result is not None:
        by_result(root, result)
    return Diagram(root)


# --- what is drawn ----------------------------------------------------------------------------------------


def _labels(root: Step) -> dict[str, str]:
    """Return what is written for each label: cut, so that different ones stay different."""
    labels = list(dict.fromkeys(step.label for step in root.everything()))
    texts = [console.printable(label) for label in labels]
    return dict(zip(labels, shortened(texts, LABEL_LETTERS), strict=True))


def _abridged(steps: list[Step], last: int = 0) -> list[Step]:
    """Return the steps that are drawn. If they are too many, one stands for those before the `last` ones."""
    if len(steps) <= SHOWN_STEPS + last:
        return steps
    end = len(steps) - last
    others = steps[SHOWN_STEPS - 1 : end]
    states = Counter(task.state for step in others for task in step.everything() if task.state)
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    more = Step("more", f"… and {len(others)} more", state=told)
    return [*steps[: SHOWN_STEPS - 1], more, *steps[end:]]


def _drawn(step: Step) -> list[Step]:
    """Return the members that are drawn. Of a chain, the last one is always shown."""
    return _abridged(step.members, last=1 if step.kind == "chain" else 0)


# --- from steps to Mermaid --------------------------------------------------------------------------------


class _Mermaid:
    """Writes one picture. An arrow to or from a group touches its frame: n members need no n arrows."""

    def __init__(self, root: Step) -> None:
        self.lines: list[str] = ["flowchart LR"]
        self.arrows: list[str] = []
        self.handlers: dict[int, str] = {}  # one node for each error callback, however many tasks have it
        self.used: set[str] = set()
        self.numbers = itertools.count(1)
        self.labels = _labels(root)
        self._draw(root, ())

    def text(self) -> str:
        """Return the lines as one text."""
        styles = [f"  classDef {name} {STYLES[name]}" for name in STYLES if name in self.used]
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
        for word, others in (("then", step.then), ("sends", _abridged(step.sent))):
            for other in others:
                begin_of_other, _ = self._draw(other, ())
                self.arrows.append(f'  {end} -- "{word}" --> {begin_of_other}')
        return begin, end

    def _draw_chain(self, step: Step, handlers: tuple[Step, ...]) -> tuple[str, str]:
        ends = [self._draw(member, handlers) for member in _drawn(step)]
        for (_, before), (after, _) in itertools.pairwise(ends):
            self.arrows.append(f"  {before} --> {after}")
        return ends[0][0], ends[-1][1]

    def _draw_frame(self, step: Step, handlers: tuple[Step, ...]) -> str:
        if not step.members:  # Mermaid does not draw an empty frame
            return self._node(step)
        frame = f"g{next(self.numbers)}"
        label = "<br>".join(_escape(line) for line in (step.label, step.note) if line)
        self.lines.append(f'  subgraph {frame}["{label}"]')
        for member in _drawn(step):
            self._draw(member, handlers if member.kind != "more" else ())
        self.lines.append("  end")
        return frame

    def _node(self, step: Step) -> str:
        node = f"n{next(self.numbers)}"
        lines = (self.labels.get(step.label, step.label), step.note, step.state)
        label = "<br>".join(_escape(line) for line in lines if line)
        style = _style_of(step.state) if step.kind == "task" else ""
        self.used.add(style)
        self.lines.append(f'  {node}["{label}"]{f":::{style}" if style else ""}')
        return node

    def _handler(self, step: Step) -> str:
        if id(step) not in self.handlers:
            self.handlers[id(step)], _ = self._draw(step, ())
        return self.handlers[id(step)]


def _style_of(state: str) -> str:
    """Return the name of the style for a state, or for the states of several runs: `2 SUCCESS`."""
    if NEVER_RAN in state:
        return "PENDING"
    words = {word for word in state.replace(",", "").split() if not word.isdigit()}
    styles = {STYLE_OF.get(word, word) for word in words}
    found = styles.pop() if len(styles) == 1 else "OTHER" if styles else ""
    return found if found in STYLES or not found else "OTHER"


def _escape(text: str) -> str:
    """Return `text` fit for a Mermaid label: signs with a meaning there become their number."""
    return "".join(f"#{ord(sign)};" if sign in '#"`<>&\\' else sign for sign in " ".join(text.split()))


# --- from steps to text -----------------------------------------------------------------------------------


def _tree(step: Step, labels: dict[str, str]) -> Tree:
    words = [labels.get(step.label, step.label)]
    words += [f"({step.note})"] if step.note else []
    words += [f" [{step.state}]"] if step.state else []
    tree = Tree(Text(" ".join(words)))
    for member in _drawn(step):
        tree.add(_tree(member, labels))
    parts = {"body": [step.body] if step.body else [], "then": step.then, "on error": step.on_error}
    for name, others in (parts | {"sends": _abridged(step.sent)}).items():
        for other in others:
            branch = _tree(other, labels)
            branch.label = Text(f"{name}: {branch.label}")
            tree.add(branch)
    return tree
