"""A finding, and the place where it was found."""

from dataclasses import dataclass, field
from pathlib import Path

from doctor.catalogue import RULES, Rule

SEVERITIES = ("note", "warning", "danger")  # the exit code is the index


@dataclass(frozen=True)
class Place:
    """A line of a file; or, without a file, the name of a setting or of something in the broker."""

    name: str = ""
    path: Path | None = None
    line: int = 0

    def __str__(self) -> str:
        if self.path is None:
            return self.name
        inside = self.path.is_relative_to(Path.cwd())
        return f"{self.path.relative_to(Path.cwd()) if inside else self.path}:{self.line}"


@dataclass(frozen=True)
class Finding:
    """A hazard that was seen: the id of its rule, what was seen, and where."""

    id: str
    what: str
    place: Place

    @property
    def rule(self) -> Rule:
        """What the catalogue says of it."""
        return RULES[self.id]

    @property
    def silence(self) -> str:
        """How to silence it."""
        if self.place.path:
            return f"write  # doctor: ignore[{self.id}]  at the end of that line"
        return f'add "{self.id}" to ignore under [tool.celery-doctor] in pyproject.toml'


@dataclass
class Report:
    """What was found, and what could not be read."""

    subject: str
    findings: list[Finding] = field(default_factory=list)
    not_read: list[str] = field(default_factory=list)
    failed: bool = False  # the app that was named could not be read

    @property
    def exit_code(self) -> int:
        """0: nothing, or notes. 1: warnings. 2: dangers. 3: the app could not be read."""
        return 3 if self.failed else max((SEVERITIES.index(one.rule.severity) for one in self.findings), default=0)
