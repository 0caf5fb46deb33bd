"""What a check says of a learner's file."""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

PASSED = "passed"
NOT_ATTEMPTED = "not attempted"
WRONG = "not yet"
NO_START = "did not start"
BROKER_DOWN = "broker down"
TIMED_OUT = "timed out"
OUT_OF_MEMORY = "out of memory"
FAULT = "fault in the course"

PRINTED_LETTERS = 2000
LABELS = {"did": "We did", "saw": "We saw", "means": "It means", "look": "Look at"}


class Wrong(Exception):
    """Why a task is not right yet: what we did, what we saw, what it means, and where to look."""

    def __init__(self, did: str, saw: str, means: str, look: str = "", kind: str = WRONG) -> None:
        super().__init__(means)
        self.did, self.saw, self.means, self.look, self.kind = did, saw, means, look, kind


@dataclass(frozen=True)
class Line:
    """The verdict on one numbered task. The four sentences are empty if it has passed."""

    number: int
    title: str
    kind: str
    did: str = ""
    saw: str = ""
    means: str = ""
    look: str = ""


@dataclass(frozen=True)
class Verdict:
    """The verdict on an exercise. `reason` says why there are no lines. `timeline` is the chart, as text."""

    exercise: str
    kind: str
    lines: tuple[Line, ...] = ()
    reason: str = ""
    printed: str = ""
    timeline: str = ""
    timeline_html: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether all of it is right."""
        return self.kind == PASSED

    def as_json(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Return the verdict with the fields that `as_json` writes."""
        return cls(**fields | {"lines": tuple(Line(**line) for line in fields["lines"])})

    def text(self, width: int = 80) -> str:
        """Return it as text of `width` columns."""
        return "\n".join(self._text(width))

    def _text(self, width: int) -> Iterator[str]:
        for line in self.lines:
            yield f"{'[x]' if line.kind == PASSED else '[ ]'} {line.number}  {line.title}: {line.kind}"
            for name, label in LABELS.items():
                if said := getattr(line, name):
                    yield _labelled(label, said, width)
        if self.reason:
            yield from (textwrap.fill(part, width) for part in self.reason.splitlines())
        if self.printed:
            yield "Your file printed:"
            yield textwrap.indent(self.printed.rstrip(), "  | ", lambda _: True)
        if self.timeline and not self.passed:
            yield ""
            yield self.timeline
        yield f"\n{self.exercise}: {self.kind} ({self.seconds:.1f} s)"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        import html

        kept = replace(self, timeline="")
        page = f"<pre style='white-space: pre-wrap'>{html.escape(kept.text(72))}</pre>"
        return {"text/plain": self.text(), "text/html": page + ("" if self.passed else self.timeline_html)}


def _labelled(label: str, said: str, width: int) -> str:
    indent = " " * 17
    first, *others = said.splitlines() or [""]
    wrap = textwrap.TextWrapper(width, initial_indent=f"       {label:9} ", subsequent_indent=indent)
    rest = [textwrap.fill(line, width, initial_indent=indent, subsequent_indent=indent) for line in others]
    return "\n".join([wrap.fill(first), *rest])
