"""The claims of notebook 05: beat, its schedule file, expired messages, countdowns."""

import json
import os
import shelve
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.beat import Scheduler
from celery.schedules import crontab

from celery_app import DRILL, app
from lab.sandbox import Sandbox, Worker
from lab.timeline import Timeline
from lab.xray import xray
from monitor import get_queue_length
from settings import ROOT
from tests.helper_tasks import mark, mark_and_wait
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


def test_a_second_schedule_replaces_the_first() -> None:
    """05.2 A second `app.conf.beat_schedule = {…}` replaces the first one, and its entries are sent no
    more."""
    program: Celery[Any] = Celery(set_as_current=False)
    program.conf.beat_schedule = {"first": {"task": "first", "schedule": 60}}
    program.conf.beat_schedule = {"second": {"task": "second", "schedule": 60}}
    assert [entry.task for entry in Scheduler(program).schedule.values()] == ["second"]


def test_expires_leaves_at_most_one_message_to_run(start_beat: StartBeat, sandbox: Sandbox) -> None:
    """05.3 If `expires` is shorter than the period of an entry, a worker that comes late runs at most one of
    its messages."""
    beat = start_beat("schedule")
    wait_for("four messages", lambda: get_queue_length("basic")["waiting"] >= 4)
    beat.kill()
    ids = [message.id for message in xray("basic", limit=100).messages]
    sandbox.start_worker(["basic"])

    def states() -> Counter[str]:
        return Counter(app.AsyncResult(task_id).state for task_id in ids)

    wait_for("all have ended", lambda: states()["SUCCESS"] + states()["REVOKED"] == len(ids))
    assert states()["SUCCESS"] <= 1


def test_two_beats_send_everything_twice(start_beat: StartBeat, sandbox: Sandbox) -> None:
    """05.4 Two beats send every scheduled task twice."""
    start_beat("schedule-1")
    start_beat("schedule-2")
    sandbox.broker.client().delete("basic")  # count from now on
    wait_for(
        "four messages of each", lambda: len(sent_by()) == 2 and min(sent_by().values()) >= 4, seconds=30
    )
    counts = sent_by()
    assert round(counts.total() / max(counts.values())) == 2


def test_a_job_longer_than_its_period_overlaps(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """05.5 A scheduled task that takes longer than its period runs several times at once, if the workers
    have free slots."""
    runs, release = tmp_path / "runs", tmp_path / "release"
    entry = {"task": mark_and_wait.name, "schedule": 0.2, "args": [str(runs), str(release)]}
    monkeypatch.setenv("TEST_CONF", json.dumps({"beat_schedule": {"job": entry}}))
    file = ["--schedule-filename", str(tmp_path / "schedule")]
    sandbox.start_worker(["basic"], options=[*HELPERS, "--beat", *file, "--concurrency", "3"])
    wait_for("three runs", lambda: len(lines(runs)) == 3)  # none has ended: each waits for the file
    assert len(set(lines(runs))) == 3
    release.touch()


def test_the_schedule_file_keeps_the_periods(
    start_beat: StartBeat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """05.6 beat counts periods in its schedule file: with a fresh file, a restart begins every period
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


def test_a_long_countdown_runs_more_than_once(drill_sandbox: Sandbox, tmp_path: Path) -> None:
    """05.7 On Redis, a task whose countdown is longer than the visibility timeout runs more than once."""
    drill_sandbox.start_worker(["basic"], options=HELPERS)
    mark.apply_async(args=[str(tmp_path / "runs")], countdown=6)
    wait_for("it has run twice", lambda: len(lines(tmp_path / "runs")) >= 2, seconds=30)


def test_a_countdown_whose_worker_is_killed_is_late(drill_sandbox: Sandbox, tmp_path: Path) -> None:
    """05.8 When the worker that holds a countdown is killed, the task runs after the visibility timeout, and
    not when its time comes."""
    with Timeline() as timeline:
        holder = drill_sandbox.start_worker(["basic"], "holder", options=HELPERS)
        result = mark.apply_async(args=[str(tmp_path / "runs")], countdown=0.5)
        wait_for("the worker holds it", lambda: any(run.received for run in timeline.runs))
        holder.kill()
        drill_sandbox.start_worker(["basic"], "other", options=HELPERS)
        held, done = timeline.wait_for(result)
    assert (held.outcome, done.outcome, done.redelivered) == ("received", "succeeded", True)
    assert held.received
    assert done.started
    assert done.started - held.received > DRILL["visibility_timeout"] - 0.5  # and not half a second
    assert lines(tmp_path / "runs") == ["x"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=["SIGTERM", "SIGQUIT"])
def test_a_worker_that_is_ended_gives_its_countdowns_back(
    number: int, sandbox: Sandbox, tmp_path: Path
) -> None:
    """05.9 A worker that is ended with SIGTERM or SIGQUIT puts the messages with a countdown that it holds
    back into the queue."""
    worker = sandbox.start_worker(["basic"], options=HELPERS)
    results = [mark.apply_async(args=[str(tmp_path / "runs")], countdown=600) for _ in range(2)]
    wait_for("the worker holds both", lambda: get_queue_length("basic")["unacknowledged"] == 2)
    os.kill(worker.pid, number)
    wait_for("both are back", lambda: get_queue_length("basic")["waiting"] == 2)
    assert get_queue_length("basic")["unacknowledged"] == 0
    assert {message.id for message in xray("basic").messages} == {result.id for result in results}
    assert lines(tmp_path / "runs") == []


def test_two_oclock_is_that_of_the_setting() -> None:
    """05.10 `crontab(hour="2")` means two o'clock in the time zone of the setting `timezone`, which is UTC
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


def test_a_second_beat_with_the_same_file_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    """05.11 In this app, a second beat with the same schedule file is refused, and one that was killed leaves
    no lock behind."""

    def beat(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "celery_app", "beat", "--loglevel", "info"]
        with (tmp_path / name).open("w") as log:
            options = ["--schedule", str(tmp_path / "schedule")]
            return subprocess.Popen([*command, *options], cwd=ROOT, stdout=log, stderr=log)

    def runs(name: str) -> bool:
        return "beat: Starting" in (tmp_path / name).read_text()

    first = beat("first")
    try:
        wait_for("the first runs", lambda: runs("first"), 40)
        assert beat("second").wait(timeout=40) == 1
        assert f"A beat runs already, process {first.pid}:" in (tmp_path / "second").read_text()
    finally:
        first.kill()
        first.wait()
    third = beat("third")
    try:
        wait_for("the third runs", lambda: runs("third"), 40)
    finally:
        third.kill()
        third.wait()


NAIVE_CALL = """
from datetime import datetime, timedelta
from celery import Celery
program = Celery(broker={url!r}, set_as_current=False)
in_an_hour = datetime.now() + timedelta(hours=1)
program.send_task("tests.helper_tasks.mark", [{runs!r}], eta=in_an_hour, queue="basic")
"""


@pytest.mark.parametrize(("zone", "hours"), [("America/New_York", None), ("Asia/Shanghai", 1 + 8)])
def test_a_naive_eta_is_read_as_utc(sandbox: Sandbox, tmp_path: Path, zone: str, hours: int | None) -> None:
    """05.12 Celery reads an `eta` without a time zone as UTC: in New York the task runs at once, in Shanghai
    eight hours late."""
    worker = sandbox.start_worker(["basic"], options=HELPERS)
    code = NAIVE_CALL.format(url=sandbox.broker.url, runs=str(tmp_path / "runs"))
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"TZ": zone}, check=True, timeout=60)
    if hours is None:
        wait_for("it runs", lambda: lines(tmp_path / "runs"))
        return
    name = f"{worker.name}@{socket.gethostname()}"
    held: Any = wait_for("the worker holds it", lambda: app.control.inspect([name], limit=1).scheduled())
    due = datetime.fromisoformat(held[name][0]["eta"])
    assert round((due - datetime.now(UTC)).total_seconds() / 3600) == hours
    assert lines(tmp_path / "runs") == []


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Shanghai"])
@pytest.mark.parametrize("option", ["eta", "expires"])
def test_a_naive_time_is_refused(sandbox: Sandbox, zone: str, option: str) -> None:
    """05.13 This app refuses an `eta` or an `expires` without a time zone, wherever it is given."""
    calls = [
        "add.apply_async((1, 2), {option}=now)",
        "app.send_task('tasks.basic_tasks.add', (1, 2), {option}=now.isoformat())",
        "chain(add.s(1, 2), add.s(3).set({option}=now)).delay()",
    ]
    lines_of_code = [
        "from datetime import datetime",
        "from celery import chain",
        "from celery_app import app",
        "from tasks.basic_tasks import add",
        "now = datetime.now()",
    ]
    for call in calls:
        code = "\n".join([*lines_of_code, call.format(option=option)])
        program = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"TZ": zone},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert f"ValueError: {option}=" in program.stderr
        assert "has no time zone" in program.stderr
    assert get_queue_length("basic")["waiting"] == 0
