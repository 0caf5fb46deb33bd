"""The claims of notebook 05: beat, its schedule file, expired messages, countdowns."""

import shelve
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab

from celery_app import app
from lab.sandbox import Sandbox, Worker
from lab.xray import xray
from monitor import get_queue_length
from tasks.basic_tasks import add
from tests.helper_tasks import mark
from tests.waiting import lines, wait_for

HELPERS = ["--include", "tests.helper_tasks"]

StartBeat = Callable[[str], Worker]


@pytest.fixture
def start_beat(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartBeat:
    """Return a function that starts a beat with this schedule file, in a worker that runs nothing of it."""
    monkeypatch.setenv("PERIODIC_TASK_SECONDS", "0.5")

    def start(schedule_file: str) -> Worker:
        file = ["--schedule-filename", str(tmp_path / schedule_file)]
        beat = sandbox.start_worker(["health"], options=["--beat", *file, "--loglevel", "DEBUG"])
        wait_for("its first look at the schedule", lambda: "beat: Waking up" in beat.log.read_text())
        return beat

    return start


def sent_by() -> Counter[str]:
    """Return how many messages each sender has in the queue basic."""
    return Counter(message.headers["origin"] for message in xray("basic", limit=100).messages)


def test_beat_needs_no_worker(start_beat: StartBeat) -> None:
    """05.1 beat sends messages whether or not a worker is there to take them."""
    start_beat("schedule")
    wait_for("two messages", lambda: get_queue_length("basic")["waiting"] >= 2)
    assert {message.task for message in xray("basic").messages} == {"tasks.basic_tasks.periodic_task"}


def test_expired_messages_wait_for_a_worker(sandbox: Sandbox, tmp_path: Path) -> None:
    """05.2 A message that has expired stays in the queue until a worker takes it. The worker does not run it,
    and its state is REVOKED."""
    late = [mark.apply_async(args=[str(tmp_path / "runs")], expires=0.1) for _ in range(3)]
    ends = [datetime.fromisoformat(message.headers["expires"]) for message in xray("basic").messages]
    wait_for("all have expired", lambda: datetime.now(UTC) > max(ends))
    assert get_queue_length("basic")["waiting"] == len(late) == len(ends)
    sandbox.start_worker(["basic"], options=HELPERS)
    wait_for("all are revoked", lambda: [result.state for result in late] == ["REVOKED"] * 3)
    assert get_queue_length("basic")["waiting"] == 0
    assert lines(tmp_path / "runs") == []


def test_two_beats_send_everything_twice(start_beat: StartBeat, sandbox: Sandbox) -> None:
    """05.3 Two beats send every scheduled task twice."""
    start_beat("schedule-1")
    start_beat("schedule-2")
    sandbox.broker.client().delete("basic")  # count from now on
    wait_for(
        "four messages of each", lambda: len(sent_by()) == 2 and min(sent_by().values()) >= 4, seconds=30
    )
    counts = sent_by()
    assert round(counts.total() / max(counts.values())) == 2


def test_the_schedule_file_keeps_the_periods(
    start_beat: StartBeat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """05.4 beat counts periods in its schedule file: with a fresh file, a restart begins every period
    anew."""
    monkeypatch.setenv("PERIODIC_TASK_SECONDS", "3600")

    def due_after_start(schedule_file: str) -> datetime:
        start_beat(schedule_file).kill()
        with shelve.open(str(tmp_path / schedule_file), "r") as schedule:
            entry = schedule["entries"]["periodic-task"]
        due: datetime = entry.last_run_at + entry.schedule.run_every
        return due

    kept = due_after_start("kept")
    fresh = due_after_start("fresh-1")
    assert due_after_start("kept") == kept
    assert due_after_start("fresh-2") > fresh


def test_a_worker_holds_tasks_with_a_countdown(sandbox: Sandbox, tmp_path: Path) -> None:
    """05.5 A task with a countdown leaves the queue at once: a worker holds it, unacknowledged, until it is
    due."""
    sandbox.start_worker(["basic"], options=HELPERS)
    result = mark.apply_async(args=[str(tmp_path / "runs")], countdown=600)
    delayed = wait_for("the worker holds it", lambda: xray("basic").delayed)
    assert [task.id for task in delayed] == [result.id]
    assert get_queue_length("basic") == {"waiting": 0, "unacknowledged": 1, "by_priority": {}}
    add.delay(1, 1).get(timeout=10)
    assert lines(tmp_path / "runs") == []


def test_a_long_countdown_runs_more_than_once(lab_sandbox: Sandbox, tmp_path: Path) -> None:
    """05.6 On Redis, a task whose countdown is longer than the visibility timeout runs more than once."""
    lab_sandbox.start_worker(["basic"], options=HELPERS)
    mark.apply_async(args=[str(tmp_path / "runs")], countdown=8)
    wait_for("it has run twice", lambda: len(lines(tmp_path / "runs")) >= 2, seconds=30)


def test_two_oclock_is_that_of_the_setting() -> None:
    """05.7 `crontab(hour="2")` means two o'clock in the time zone of the setting `timezone`, which is UTC
    unless you set it."""
    noon = datetime(2030, 1, 15, 12, tzinfo=UTC)

    def next_run(program: "Celery[Any]") -> datetime:
        last_run, wait, _ = crontab(hour="2", minute="0", app=program).remaining_delta(noon)
        return last_run + wait

    default = Celery(set_as_current=False)
    shanghai = Celery(set_as_current=False)
    shanghai.conf.update(timezone="Asia/Shanghai")
    assert next_run(default) == next_run(app) == datetime(2030, 1, 16, 2, tzinfo=UTC)
    assert next_run(shanghai) == datetime(2030, 1, 16, 2, tzinfo=ZoneInfo("Asia/Shanghai"))
