"""The claims of notebook 05: beat, its schedule file, expired messages, countdowns."""

import json
import os
import shelve
import signal
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.beat import PersistentScheduler
from celery.schedules import crontab

from celery_app import DRILL, app
from lab.evidence import states, unacknowledged, waiting
from lab.sandbox import Sandbox, Worker
from lab.timeline import Timeline
from lab.xray import xray
from tests.helper_tasks import mark, mark_and_wait
from tests.waiting import lines, wait_for
from tests.workers import start

StartBeat = Callable[[str], Worker]


@pytest.fixture
def start_beat(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartBeat:
    """Return a function that starts a beat with this schedule file, in a worker that runs nothing of it."""
    monkeypatch.setenv("PERIODIC_TASK_SECONDS", "0.5")

    def start_beat(schedule_file: str) -> Worker:
        file = ["--schedule-filename", str(tmp_path / schedule_file)]
        beat = sandbox.start_worker(["health"], options=["--beat", *file, "--loglevel", "DEBUG"])
        wait_for("its first look at the schedule", lambda: "beat: Waking up" in beat.log.read_text())
        return beat

    return start_beat


def sent_by() -> Counter[str]:
    """Return how many messages each sender has in the queue basic."""
    return Counter(message.headers["origin"] for message in xray("basic", limit=100).messages)


def test_beat_needs_no_worker(start_beat: StartBeat) -> None:
    """05.1 beat sends messages whether or not a worker is there to take them."""
    start_beat("schedule")
    wait_for("two messages", lambda: waiting("basic") >= 2)
    assert {message.task for message in xray("basic").messages} == {"tasks.basic_tasks.periodic_task"}


def test_a_second_schedule_replaces_the_first(tmp_path: Path) -> None:
    """05.2 A second `app.conf.beat_schedule = {…}` replaces the first one, and its entries are sent no
    more."""
    program: Celery[Any] = Celery(set_as_current=False)
    for name in ("first", "second"):  # the schedule file still knows the first one
        program.conf.beat_schedule = {name: {"task": name, "schedule": 60}}
        scheduler = PersistentScheduler(program, schedule_filename=str(tmp_path / "schedule"))
        assert set(scheduler.schedule) == {name, "celery.backend_cleanup"}  # the latter is Celery's own
        scheduler.close()


def test_expires_leaves_at_most_one_message_to_run(start_beat: StartBeat, sandbox: Sandbox) -> None:
    """05.3 If `expires` is shorter than the period of an entry, a worker that comes late runs at most one of
    its messages."""
    beat = start_beat("schedule")
    wait_for("four messages", lambda: waiting("basic") >= 4)
    beat.kill()
    late = [app.AsyncResult(message.id) for message in xray("basic", limit=100).messages]
    sandbox.start_worker(["basic"])
    wait_for("all have ended", lambda: set(states(late)) <= {"SUCCESS", "REVOKED"})
    assert states(late).count("SUCCESS") <= 1


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
    """05.5 A scheduled task that takes longer than its period runs several times at once, if the concurrency
    of the workers allows it.
    """
    runs, release = tmp_path / "runs", tmp_path / "release"
    entry = {"task": mark_and_wait.name, "schedule": 0.2, "args": [str(runs), str(release)]}
    monkeypatch.setenv("TEST_CONF", json.dumps({"beat_schedule": {"job": entry}}))
    file = ["--schedule-filename", str(tmp_path / "schedule")]
    start(sandbox, concurrency=3, options=["--beat", *file])
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
    start(drill_sandbox)
    mark.apply_async(args=[str(tmp_path / "long")], countdown=6)
    mark.apply_async(args=[str(tmp_path / "short")], countdown=1)
    wait_for("it has run twice", lambda: len(lines(tmp_path / "long")) >= 2, seconds=30)
    assert lines(tmp_path / "short") == ["x"]  # shorter than the visibility timeout


def test_a_countdown_whose_worker_is_killed_is_late(drill_sandbox: Sandbox, tmp_path: Path) -> None:
    """05.8 When the worker that holds a countdown is killed, the task runs after the visibility timeout, and
    not when its time comes."""
    with Timeline() as timeline:
        holder = start(drill_sandbox, name="holder")
        result = mark.apply_async(args=[str(tmp_path / "runs")], countdown=2)
        wait_for("the worker holds it", lambda: any(run.received for run in timeline.runs))
        holder.kill()
        start(drill_sandbox, name="other")
        lost, done = timeline.wait_for(result)
    assert (lost.outcome, done.outcome, done.redelivered) == ("received", "succeeded", True)
    assert lost.received
    assert done.started
    assert done.started - lost.received > DRILL["visibility_timeout"] - 0.5  # its time came after 2 seconds
    assert lines(tmp_path / "runs") == ["x"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=["SIGTERM", "SIGQUIT"])
def test_a_worker_that_is_ended_gives_its_countdowns_back(
    number: int, sandbox: Sandbox, tmp_path: Path
) -> None:
    """05.9 A worker that is ended with SIGTERM or SIGQUIT puts the messages with a countdown that it holds
    back into the queue."""
    worker = start(sandbox)
    results = [mark.apply_async(args=[str(tmp_path / "runs")], countdown=600) for _ in range(2)]
    wait_for("the worker holds both", lambda: unacknowledged("basic") == 2)
    os.kill(worker.pid, number)
    wait_for("both are back", lambda: waiting("basic") == 2)
    assert unacknowledged("basic") == 0
    assert {message.id for message in xray("basic").messages} == {result.id for result in results}
    assert lines(tmp_path / "runs") == []


def test_two_oclock_is_that_of_the_setting() -> None:
    """05.10 `crontab(hour="2", minute="0")` means two o'clock in the time zone of the setting `timezone`,
    which is UTC unless you set it; without `minute` it is due every minute of that hour.
    """
    noon = datetime(2030, 1, 15, 12, tzinfo=UTC)
    at_two = datetime(2030, 1, 16, 2)

    def next_run(schedule: crontab, last: datetime = noon) -> datetime:
        last_run, wait, _ = schedule.remaining_delta(last)
        return last_run + wait

    default = Celery(set_as_current=False)
    shanghai = Celery(set_as_current=False)
    shanghai.conf.update(timezone="Asia/Shanghai")
    for program, zone in ((default, "UTC"), (app, "UTC"), (shanghai, "Asia/Shanghai")):
        expected = at_two.replace(tzinfo=ZoneInfo(zone))
        assert next_run(crontab(hour="2", minute="0", app=program)) == expected

    each_minute = crontab(hour="2", app=default)
    moments = [next_run(each_minute)]
    while len(moments) < 61:
        moments.append(next_run(each_minute, last=moments[-1]))
    assert moments[:60] == [at_two.replace(minute=minute, tzinfo=UTC) for minute in range(60)]
    assert moments[60] == at_two.replace(day=17, tzinfo=UTC)
