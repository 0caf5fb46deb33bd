"""An argument of a task that becomes part of a path: whatever a message says, nothing outside is touched.

A new task belongs into one of the two tables. A test says so.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from celery_app import app
from services.error_texts import shown
from services.mail import PermanentMailError
from settings import settings

SUMMARY = {"days": 1, "mean": 1.0, "coldest": 1.0, "warmest": 1.0}
IMAGE = {"width": 1, "height": 1, "format": "PNG", "bytes": 1}
PDF = {"period": "2026", "orders": 1, "revenue": "1.00", "html": "out/a.html"}

# The arguments of each task with a name from outside in them, and what the error calls it.
WITH_PATHS: dict[str, list[tuple[Callable[[str], tuple[Any, ...]], str]]] = {
    "tasks.advanced_tasks.fetch_data": [(lambda name: (name,), "source")],
    "tasks.advanced_tasks.mean_temperature": [(lambda name: (name,), "source")],
    "tasks.advanced_tasks.save_result": [(lambda name: ({"source": name, **SUMMARY},), "source")],
    "tasks.realworld_tasks.process_image": [(lambda name: (name, ["thumbnail"]), "image_path")],
    "tasks.realworld_tasks.make_contact_sheet": [
        (lambda name: ([{"path": name, **IMAGE}], "sheet.png"), "image_path"),
        (lambda name: ([{"path": "a.png", **IMAGE}], name), "output"),
    ],
    "tasks.realworld_tasks.import_data": [
        (lambda name: (name,), "csv_path"),
        (lambda name: (name, 3), "csv_path"),
    ],
    "tasks.realworld_tasks.export_data": [(lambda name: (name,), "format")],
    "tasks.realworld_tasks.generate_report": [(lambda name: (name,), "period")],
    "tasks.realworld_tasks.cleanup_files": [(lambda name: (name, 1.0, False), "folder")],
    "tasks.realworld_tasks.send_email": [
        (lambda name: ("ada@example.com", "a", "b", None, [name]), "attachments")
    ],
    "tasks.realworld_tasks.mail_report": [
        (lambda name: ({"pdf": name, **PDF}, "ada@example.com"), "attachments")
    ],
    "tasks.realworld_tasks.mail_contact_sheet": [
        (lambda name: ({"path": name, **IMAGE}, "ada@example.com"), "attachments")
    ],
}
WITHOUT_PATHS = {
    *(f"tasks.basic_tasks.{name}" for name in ("add", "multiply", "greet", "count_words")),
    *(f"tasks.basic_tasks.{name}" for name in ("task_with_progress", "logged_task", "describe_request")),
    *("simple_calculation", "tasks.basic_tasks.periodic_task", "tasks.basic_tasks.daily_task"),
    *(f"tasks.advanced_tasks.{name}" for name in ("process_item", "summarize", "report_failure")),
    *(f"tasks.advanced_tasks.{name}" for name in ("retry_with_backoff", "retry_fixed_delay")),
    *(f"tasks.advanced_tasks.{name}" for name in ("autoretry_task", "robust_task", "idempotent_task")),
    *(f"tasks.advanced_tasks.{name}" for name in ("prioritized_task", "rate_limited_task")),
    *(f"tasks.advanced_tasks.{name}" for name in ("time_limited_task", "monitored_task")),
    *(f"tasks.realworld_tasks.{name}" for name in ("import_part", "merge_parts", "mail_failure")),
    *(f"tasks.ai_tasks.{name}" for name in ("run_ai_text_generation", "fail_lost_tasks")),
    "tasks.health_tasks.ping",
}


@pytest.fixture(autouse=True)
def tasks() -> None:
    """Import the modules of all tasks, as a worker does."""
    app.loader.import_default_modules()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that holds the data folder, the state folder and a file that is nobody's business."""
    for name in ("data_dir", "state_dir"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(settings, name, tmp_path / name)
    (tmp_path / "secret.csv").write_text("secret")
    (settings.data_dir / "link").symlink_to(tmp_path)
    (settings.out_dir / "link").parent.mkdir()
    (settings.out_dir / "link").symlink_to(tmp_path)
    return tmp_path


def everything(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in files if path.suffix not in (".sqlite", ".sqlite3")}


CASES = [(name, number) for name, cases in WITH_PATHS.items() for number in range(len(cases))]
NAMES = [
    "/secret.csv",
    "../secret.csv",
    "a/../../secret.csv",
    "link/secret.csv",
    "",
    "\0",
    "\ud800",
    "x" * 300,
]


def test_each_task_is_in_one_of_the_tables() -> None:
    ours = {name for name, task in app.tasks.items() if task.__module__.startswith("tasks.")}
    assert set(WITH_PATHS) | WITHOUT_PATHS == ours
    assert not set(WITH_PATHS) & WITHOUT_PATHS


@pytest.mark.parametrize("outside", NAMES, ids=lambda name: shown(name)[:20])
@pytest.mark.parametrize(("task", "number"), CASES)
def test_a_name_from_a_message_leads_nowhere(places: Path, task: str, number: int, outside: str) -> None:
    if outside == "/secret.csv":
        outside = str(places / "secret.csv")
    arguments, field = WITH_PATHS[task][number]
    before = everything(places)
    with pytest.raises((ValueError, PermanentMailError)) as refused:
        app.tasks[task].run(*arguments(outside))
    assert f"{field}" in str(refused.value)
    assert len(str(refused.value)) < 1000
    assert everything(places) == before
