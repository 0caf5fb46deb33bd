"""The command line: what is read, in which order, and the exit code."""

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from doctor.code import Facts, code_findings
from doctor.configuration import SETTING_RULES
from doctor.effective import Settings
from doctor.findings import Finding, Report
from doctor.live import NoAnswer, live_findings
from doctor.loading import LoadedApp, NotReadable, is_at_home, leave_home, load_app
from doctor.registry import REGISTRY_RULES
from doctor.report import as_json, print_report
from doctor.silence import BadSilence, ignored_ids, is_silenced
from doctor.source import Sources, python_files
from doctor.tasks_in_code import TasksInCode

DEFAULT_APP = "celery_app:app"
NOTHING_READ = 3
CODES = """\
Run it in the folder of the project. With PATHS and without --app, only the code
is read, and nothing is imported. In a folder, tests are left out.

To silence one finding, write  # doctor: ignore[ID]  in its line, or add the ID
to ignore in pyproject.toml:  [tool.celery-doctor]  ignore = ["ID"]

Exit code: 0 no finding, or notes; 1 warnings; 2 dangers; 3 the app could not be
imported, or the command is wrong."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(NOTHING_READ, f"{self.prog}: {message}\n")  # 2 would mean a danger


def main(argv: list[str]) -> int:
    """Look for hazards in a Celery app, print them, and return the exit code (see `CODES`)."""
    options = _parser().parse_args(argv)
    if is_at_home():  # a caller has our own settings and tasks loaded: they would stand for the other's
        return subprocess.run([sys.executable, "-m", "doctor", *argv], check=False).returncode
    leave_home()
    try:
        ignored = ignored_ids()
        _check_paths(options.paths)
    except (BadSilence, FileNotFoundError) as error:
        print(f"doctor: {error}", file=sys.stderr)
        return NOTHING_READ
    report = examine(options.app, options.paths, use_broker=not options.no_broker)
    report.findings = [finding for finding in report.findings if not is_silenced(finding, ignored)]
    if options.json:
        print(as_json(report))
    else:
        print_report(report)
    return report.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="doctor",
        description="Look for hazards in a Celery app: its settings, its tasks' code, its live broker.",
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--app", "-A", help=f"as celery --app has it; without PATHS {DEFAULT_APP}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--no-broker", action="store_true", help="do not ask the broker")
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATHS", help="more code to read")
    return parser


def _check_paths(paths: list[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")


def examine(app: str | None, paths: list[Path], use_broker: bool = True) -> Report:
    """Return what is found in an app, in files, or in both. Never raises for what the app is like."""
    files = [file for path in paths for file in python_files(path)]
    name = app or ("" if paths else DEFAULT_APP)
    report = Report(name or " ".join(map(str, paths)))
    loaded = _load(name, report) if name else None
    if not name:
        report.not_read.append("settings and broker, for no --app was given")
    if loaded:
        settings = Settings(loaded)
        loaded.sources.add(files)
        _read_settings(settings, report)
        _read_code(loaded.in_code, _facts(settings), report)
        if use_broker:
            _read_broker(settings, report)
    else:
        _read_code(TasksInCode(Sources(files)), Facts(), report)
    return report


def _load(name: str, report: Report) -> LoadedApp | None:
    try:
        loaded = load_app(name)
    except NotReadable as error:
        report.failed = True
        report.not_read.append(f"settings and broker, for the app {name} cannot be imported: {error}")
        return None
    if loaded.incomplete:
        report.not_read.append(f"some task modules, for they cannot be imported: {loaded.incomplete}")
    return loaded


def _read_settings(settings: Settings, report: Report) -> None:
    for rule in SETTING_RULES:
        report.findings += rule(settings)
    if not settings.loaded.incomplete:  # or what is missing would be taken for unknown
        for rule in REGISTRY_RULES:
            report.findings += rule(settings)


def _facts(settings: Settings) -> Facts:
    return Facts(
        app_was_read=True,
        visibility_timeout=settings.visibility_timeout,
        has_backend=settings.has_backend,
        waits_block=settings.pool not in ("gevent", "eventlet"),
        naive_is_utc=bool(settings.conf.enable_utc),
        is_eager=bool(settings.conf.task_always_eager),
    )


def _read_code(tasks: TasksInCode, facts: Facts, report: Report) -> None:
    report.findings += code_findings(tasks, facts)
    if unreadable := tasks.sources.unreadable:
        report.not_read.append(f"{_names(unreadable)}: not Python that this version of it can read")


def _read_broker(settings: Settings, report: Report) -> None:
    remarks: list[str] = []
    try:
        findings: Iterable[Finding] = list(live_findings(settings, remarks))
    except NoAnswer as error:
        report.not_read.append(f"the broker: {error}")
        return
    report.findings += findings
    report.not_read += remarks


def _names(paths: list[Path]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(path.name for path in paths[:3]) + more
