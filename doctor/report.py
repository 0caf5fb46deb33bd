"""A report as text for people, or as JSON for programs."""

import json
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator

from doctor.findings import SEVERITIES, Finding, Report

WIDTH = 80
STYLES = {"danger": "bold red", "warning": "yellow", "note": "cyan", "": ""}


def as_json(report: Report) -> str:
    """Return a report as JSON."""
    findings = [
        {
            "id": finding.id,
            "severity": finding.rule.severity,
            "what": finding.what,
            "where": str(finding.place),
            "file": str(finding.place.path) if finding.place.path else None,
            "line": finding.place.line or None,
            "why": finding.rule.why,
            "remedy": finding.rule.remedy,
            "lesson": finding.rule.lesson,
            "silence": finding.silence,
        }
        for finding in in_order(report)
    ]
    whole = {"subject": report.subject, "findings": findings, "not_read": report.not_read}
    return json.dumps(whole | {"exit_code": report.exit_code}, indent=2)


def in_order(report: Report) -> list[Finding]:
    """Return the findings, the gravest first, then by place."""
    def rank(finding: Finding) -> tuple[int, str, str, int]:
        place = finding.place
        return -SEVERITIES.index(finding.rule.severity), finding.id, str(place.path or place), place.line

    return sorted(dict.fromkeys(report.findings), key=rank)


def print_report(report: Report) -> None:
    """Print a report. In a terminal the severities have colours; no line is longer than 80 columns."""
    for style, line in _lines(report):
        _print(line, style)


def _lines(report: Report) -> Iterator[tuple[str, str]]:
    findings = in_order(report)
    for finding in findings:
        rule = finding.rule
        yield STYLES[rule.severity], f"{rule.severity} [{finding.id}]"
        yield "", f"  {finding.place}"  # in one line, so that a terminal can open it
        for label, text in (
            ("", finding.what),
            ("why: ", rule.why),
            ("remedy: ", rule.remedy),
            ("lesson: ", rule.lesson),
            ("silence: ", finding.silence),
        ):
            yield from (("", line) for line in _wrapped(label + text))
        yield "", ""
    counts = Counter(finding.rule.severity for finding in findings)
    parts = [f"{counts[severity]} {severity}{'s' * (counts[severity] != 1)}" for severity in reversed(SEVERITIES)]
    for reason in report.not_read:
        yield from (("yellow", line) for line in _wrapped(f"Not read: {reason}.", indent=""))
    yield "bold", f"{report.subject}: {', '.join(parts)}"


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    wrapper = textwrap.TextWrapper(width, initial_indent=indent, subsequent_indent=indent)
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return wrapper.wrap(text)


def _print(line: str, style: str) -> None:
    if style and sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.text import Text
        except ImportError:  # the doctor needs nothing but Celery
            pass
        else:
            Console(soft_wrap=True).print(Text(line, style))
            return
    print(line)
