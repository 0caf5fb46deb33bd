"""The timeline tells what workers did: retries, failures, redeliveries, waits; also when events are lost."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from celery import chord, group
from celery.events.event import get_exchange
from kombu import Producer
from kombu.exceptions import OperationalError
from rich.cells import cell_len

from celery_app import app
from lab.chart import chart, svg_chart
from lab.runs import ENDINGS, Event, Run, runs_of
from lab.sandbox import Sandbox, Worker
from lab.timeline import Timeline
from settings import ROOT
from tasks.advanced_tasks import (
    fetch_data,
    mean_temperature,
    process_item,
    retry_with_backoff,
    robust_task,
    summarize,
)
from tasks.basic_tasks import add, describe_request
from tests.helper_tasks import mark_and_wait, replace_itself
from tests.waiting import lines, wait_for


@pytest.fixture
def worker(sandbox: Sandbox) -> Worker:
    return sandbox.start_worker(["basic", "advanced"], include=["tests.helper_tasks"])


@pytest.fixture
def timeline(sandbox: Sandbox) -> Iterator[Timeline]:
    with Timeline() as timeline:
        yield timeline


def in_order(run: Run) -> bool:
    times = [run.sent, run.received, run.started, run.ended]
    return None not in times and times == sorted(times)  # type: ignore[type-var]


def bar_of(line: str) -> str:
    return line.split("|")[1]


# --- what a run says ---


def test_a_run_has_its_task_worker_times_and_outcome(worker: Worker, timeline: Timeline) -> None:
    result = add.delay(4, 5)
    [run] = timeline.wait_for(result)
    assert (run.task_id, run.name, run.outcome) == (result.id, "tasks.basic_tasks.add", "succeeded")
    assert run.worker.startswith(worker.name)
    assert in_order(run)
    assert run.waited is not None
    assert run.ran is not None
    assert timeline.runs == [run]


def test_a_task_that_replaces_itself_is_not_delivered_again(worker: Worker, timeline: Timeline) -> None:
    [before, after] = timeline.wait_for(replace_itself.delay())
    assert before.task_id == after.task_id
    assert (before.name, before.outcome, before.redelivered) == (
        "tests.helper_tasks.replace_itself",
        "started",
        False,
    )
    assert (after.name, after.outcome, after.redelivered) == ("tasks.basic_tasks.add", "succeeded", False)


def test_each_retry_is_a_run_of_its_own(worker: Worker, timeline: Timeline) -> None:
    result = retry_with_backoff.delay(failures=2, base_seconds=0.1)
    runs = timeline.wait_for(result)
    assert [(run.retries, run.outcome) for run in runs] == [(0, "retried"), (1, "retried"), (2, "succeeded")]
    assert "ConnectionError" in runs[0].detail
    assert not any(run.redelivered for run in runs)
    assert all(in_order(run) for run in runs)
    text = timeline.text()
    assert [bar_of(line).strip()[-1] for line in text.splitlines() if "retry_with" in line] == ["R", "R", "S"]
    assert "retry 2" in text


def test_a_failure_says_why(worker: Worker, timeline: Timeline) -> None:
    [run] = timeline.wait_for(robust_task.delay(failures=1, error="data"))
    assert run.outcome == "failed"
    assert "ValueError" in run.detail
    assert "F failed" in timeline.text()


def test_a_countdown_is_waited_for_in_the_worker(worker: Worker, timeline: Timeline) -> None:
    [run] = timeline.wait_for(add.apply_async((1, 2), countdown=0.5))
    assert run.started is not None
    assert run.received is not None
    assert run.started - run.received > 0.3
    assert ":::" in timeline.text()


def test_a_message_that_nobody_takes_is_only_sent(sandbox: Sandbox, timeline: Timeline) -> None:
    add.delay(1, 2)
    [run] = wait_for("its event", lambda: timeline.runs)
    assert (run.outcome, run.worker, run.waited, run.ran) == ("sent", "", None, None)
    assert "no worker yet" in timeline.text()


def test_two_workers_have_a_part_of_the_chart_each(sandbox: Sandbox, timeline: Timeline) -> None:
    sandbox.start_worker(["basic"], name="one")
    sandbox.start_worker(["advanced"], name="two")
    timeline.wait_for(group(add.s(1, 2), mean_temperature.s("north")).delay())
    assert {run.worker.partition("@")[0] for run in timeline.runs} == {"sandbox-one", "sandbox-two"}
    heads = [line.partition("@")[0] for line in timeline.text().splitlines() if line.startswith("sandbox-")]
    assert heads == ["sandbox-one", "sandbox-two"]


def test_a_redelivery_is_a_run_of_its_own(drill_sandbox: Sandbox, tmp_path: Path) -> None:
    drill_sandbox.start_worker(["basic"], name="first", include=["tests.helper_tasks"])
    with Timeline() as timeline:
        result = mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
        wait_for("it runs", lambda: [run for run in timeline.runs if run.started])
        drill_sandbox.worker.kill()
        drill_sandbox.start_worker(["basic"], name="second", include=["tests.helper_tasks"])
        wait_for("it runs again", lambda: len(lines(tmp_path / "runs")) == 2, seconds=30)
        (tmp_path / "release").touch()
        lost, *others = timeline.wait_for(result)  # on a slow machine it may come more than twice
    assert (lost.outcome, lost.redelivered, lost.ended) == ("started", False, None)
    assert all(run.redelivered and run.retries == 0 for run in others)
    assert "succeeded" in [run.outcome for run in others]
    text = timeline.text()
    assert {"? no end seen", "D redelivered"} <= set(text.splitlines()[-2].split("  "))
    assert text.splitlines()[-1].endswith(f"; {len(others)} redelivered.")


def test_one_task_that_runs_twice_at_once_keeps_its_runs_apart(
    drill_sandbox: Sandbox, tmp_path: Path
) -> None:
    drill_sandbox.start_worker(["basic"], include=["tests.helper_tasks"])
    with Timeline() as timeline:
        result = mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
        wait_for("it runs twice", lambda: len(lines(tmp_path / "runs")) == 2, seconds=30)
        (tmp_path / "release").touch()
        timeline.wait_for(result)
        runs = wait_for("both end", lambda: timeline.runs if all(run.ended for run in timeline.runs) else [])
    first, *others = runs
    assert [run.redelivered for run in runs] == [False, *[True] * len(others)]
    assert all((first.ran or 0) > (run.ran or 0) for run in others)


# --- waiting until it is complete ---


def test_waiting_for_a_chord_waits_for_all_its_tasks(worker: Worker, timeline: Timeline) -> None:
    header = [fetch_data.s(source) | process_item.s() for source in ("north", "south", "east")]
    runs = timeline.wait_for(chord(header, summarize.s()).delay())
    assert sorted(run.name.rpartition(".")[2] for run in runs) == [
        *["fetch_data"] * 3,
        *["process_item"] * 3,
        "summarize",
    ]
    body = runs[-1]
    assert body.name.endswith("summarize")
    assert all((run.started or 0) <= (body.started or 0) for run in runs[:-1])


@pytest.mark.parametrize(
    ("canvas", "ran"),
    [
        (add.s(1, 1) | add.s("x") | add.s(1), ["succeeded", "failed"]),
        (chord([add.s(1, 1), add.s(1, "x")], describe_request.si()), ["failed", "succeeded"]),
    ],
    ids=["chain", "chord"],
)
def test_what_follows_a_failed_task_is_not_waited_for(
    worker: Worker, timeline: Timeline, canvas: Any, ran: list[str]
) -> None:
    runs = timeline.wait_for(canvas.delay())
    assert sorted(run.outcome for run in runs) == sorted(ran)


def test_a_task_that_does_not_end_is_a_loud_timeout(
    worker: Worker, timeline: Timeline, tmp_path: Path
) -> None:
    result = mark_and_wait.delay(str(tmp_path / "runs"), str(tmp_path / "release"))
    wait_for("it runs", lambda: [run for run in timeline.runs if run.started])
    with pytest.raises(
        TimeoutError, match=f"{result.id} has not ended in time.*STARTED.*started \\(sandbox-"
    ):
        timeline.wait_for(result, seconds=0.1)
    (tmp_path / "release").touch()
    timeline.wait_for(result.id)


def test_an_unknown_id_is_a_loud_timeout(sandbox: Sandbox, timeline: Timeline) -> None:
    with pytest.raises(TimeoutError, match=r"No event of it was seen.*enable_events"):
        timeline.wait_for("no-such-id", seconds=0.1)
    with pytest.raises(TypeError, match="result=None is neither a task id nor"):
        timeline.wait_for(None)  # type: ignore[arg-type]


# --- lost events ---


@pytest.fixture
def events(worker: Worker, timeline: Timeline) -> list[Event]:
    """Return the real events of one task that was retried once."""
    # A second between the two runs: without "received", only their order tells them apart.
    timeline.wait_for(retry_with_backoff.delay(failures=1, base_seconds=1))
    return timeline.events


def test_without_one_kind_of_event_the_others_still_tell(events: list[Event]) -> None:
    whole = runs_of(events)
    assert [run.outcome for run in whole] == ["retried", "succeeded"]
    for lost in ("sent", "received", "started", "succeeded", "retried"):
        part = runs_of(event for event in events if event["type"] != f"task-{lost}")
        assert len(part) == 2, lost
        assert {run.name for run in part} == {"tasks.advanced_tasks.retry_with_backoff"}
        assert {run.worker for run in part} == {run.worker for run in whole}
        assert part[-1].outcome == ("started" if lost == "succeeded" else "succeeded")


def test_any_subset_of_events_can_be_drawn(events: list[Event]) -> None:
    for chosen in range(1, 2 ** len(events)):
        part = [event for number, event in enumerate(events) if chosen >> number & 1]
        assert "Runs " in chart(runs_of(part), width=60)


def test_events_that_arrive_in_another_order_give_the_same_runs(events: list[Event]) -> None:
    late = [event for event in events if event["type"] == "task-sent"]
    others = [event for event in events if event["type"] != "task-sent"]
    assert runs_of(others + late) == runs_of(late + others) == runs_of(events)


def test_no_event_at_all_is_told_with_a_remedy(sandbox: Sandbox, timeline: Timeline) -> None:
    assert timeline.text().startswith("No task event was seen. Do the workers send events?")
    assert "No task event was seen." in timeline.svg()


BROKER_RESTARTS = """
from lab.notebook import open_sandbox
from lab.waiting import wait_for
from lab.timeline import Timeline
from tasks.basic_tasks import add
sandbox = open_sandbox()
with Timeline() as timeline:
    sandbox.broker.restart()
    wait_for("it notices", lambda: timeline.gaps)
    wait_for("events come again", lambda: add.delay(1, 2) and timeline.runs)
sandbox.close()
print(timeline.text().splitlines()[-1])
"""


def test_it_goes_on_after_a_restart_of_the_broker_and_says_so(tmp_path: Path) -> None:
    program = subprocess.run(
        [sys.executable, "-c", BROKER_RESTARTS], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert program.returncode == 0, program.stderr
    assert program.stdout.startswith("The connection to the broker was lost (")


# --- what other programs write into the events ---


def publish(event: object) -> None:
    """Publish something where events go, as a program of another kind may do."""
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    with app.connection_for_write() as connection:
        Producer(connection.default_channel, exchange=get_exchange(connection)).publish(
            body, content_type="application/json", content_encoding="utf-8", routing_key="task.sent"
        )


NOW = 1_700_000_000.0
ODD_EVENTS: list[object] = [
    *(b"not JSON", b"\xff", b"NaN", 3, None, [], ["task-sent"], {}, {"type": 3}, {"type": "task-sent"}),
    {"type": "task-sent", "uuid": ["x"], "timestamp": NOW},
    {"type": "task-received", "uuid": "x", "timestamp": "now"},
    {"type": "task-received", "uuid": "x", "timestamp": math.nan},
    {"type": "task-received", "uuid": "x", "timestamp": 10**400},
    [{"type": "task-started", "uuid": "x"}, 3],
]
UNDERSTOOD: list[dict[str, Any]] = [
    {"type": "worker-heartbeat"},
    {"type": "task-of-our-own", "uuid": "a", "timestamp": NOW},
    {"type": "task-received", "uuid": "b", "timestamp": NOW},
    {"type": "task-sent", "uuid": "c", "timestamp": NOW, "retries": "many", "name": {"x": 1}},
    {"type": "task-started", "uuid": "d", "timestamp": NOW, "hostname": 3, "parent_id": ["x"], "root_id": 3},
    {"type": "task-succeeded", "uuid": "e", "timestamp": NOW, "runtime": "long"},
    {"type": "task-succeeded", "uuid": "f", "timestamp": NOW, "runtime": 1e300},
    {"type": "task-failed", "uuid": "g", "timestamp": NOW, "exception": ["x"], "utcoffset": "west"},
    {"type": "task-retried", "uuid": "h", "timestamp": NOW, "clock": "late", "pid": None},
    {
        "type": "task-received",
        "uuid": "$x$",
        "timestamp": NOW,
        "name": "$\\bad$\x00\x1b[2J",
        "hostname": "<&>",
    },
    {"type": "task-received", "uuid": "天气", "timestamp": NOW, "name": "tasks.天气 数据 \ud800"},
]


def test_odd_events_are_counted_and_stop_nothing(worker: Worker, timeline: Timeline) -> None:
    for event in ODD_EVENTS:
        publish(event)
    [run] = timeline.wait_for(add.delay(1, 2))
    assert run.outcome == "succeeded"
    assert timeline.runs == [run]
    assert timeline.unreadable == len(ODD_EVENTS) - 1 + 1  # an empty list holds none, and the last one two
    assert f"{timeline.unreadable} events of other programs were not understood." in timeline.text()
    assert timeline.gaps == 0


def test_an_event_that_lacks_fields_is_shown_with_what_it_has(worker: Worker, timeline: Timeline) -> None:
    for event in UNDERSTOOD:
        publish(event)
    timeline.wait_for(add.delay(1, 2))
    assert timeline.unreadable == 0
    outcomes = {run.task_id: run.outcome for run in timeline.runs if len(run.task_id) < 9}
    assert outcomes == {event["uuid"]: event["type"].removeprefix("task-") for event in UNDERSTOOD[2:]}
    for width in (20, 110):
        text = chart(timeline.runs, width)
        assert all(sign.isprintable() or sign == "\n" for sign in text)
    ElementTree.fromstring(timeline.svg())


def test_a_run_of_another_clock_has_the_time_of_its_arrival(worker: Worker, timeline: Timeline) -> None:
    event = {"type": "task-started", "uuid": "x", "hostname": "late@host"}
    publish(event | {"timestamp": time.time() - 3600})
    publish(event | {"timestamp": time.time() + 3600, "uuid": "y", "hostname": "early@host\x1b[2J"})
    publish(event | {"timestamp": time.time(), "uuid": "z", "hostname": "right@host"})
    before = time.time()
    timeline.wait_for(add.delay(1, 2))
    odd = {run.worker.partition("@")[0]: run for run in timeline.runs if run.outcome == "started"}
    assert set(odd) == {"late", "early", "right"}
    assert all(abs((one.started or 0) - before) < 60 for one in odd.values())
    assert timeline.wrong_clocks == {"late@host", "early@host\x1b[2J"}
    assert "The clock of early@host\\x1b[2J, late@host is wrong" in timeline.text()


def test_a_worker_in_another_time_zone_has_the_right_times(worker: Worker, timeline: Timeline) -> None:
    moment = time.time()
    publish({"type": "task-started", "uuid": "x", "timestamp": moment, "utcoffset": 5})
    timeline.wait_for(add.delay(1, 2))
    assert next(run for run in timeline.runs if run.task_id == "x").started == moment


def test_a_message_on_the_wire_that_is_none_stops_nothing(worker: Worker, timeline: Timeline) -> None:
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        for junk in (b"junk", b"[1]", b'{"properties": 3}', b"\xff", b"{}"):
            assert channel.client.publish("/0.celeryev/task.junk", junk) == 1  # the timeline, and no worker
    [run] = timeline.wait_for(add.delay(1, 2))
    assert run.outcome == "succeeded"
    assert timeline.gaps == 0


def test_a_full_broker_takes_no_timeline_and_says_so(sandbox: Sandbox) -> None:
    client = sandbox.broker.client()
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(OperationalError, match=r"maxmemory|full"), Timeline():
            pass
    finally:
        client.config_set("maxmemory", 0)


# --- charts ---


def test_thousands_of_tasks_stay_readable(events: list[Event]) -> None:
    many = [
        event | {"uuid": f"{number:08x}", "timestamp": event["timestamp"] + number / 1000}
        for number in range(3000)
        for event in events
    ]
    text = chart(runs_of(many), rows=20)
    assert len(text.splitlines()) == 20 + 5
    assert "Runs 6000, tasks 3000: 3000 retried, 3000 succeeded." in text
    assert "Not drawn: 5980 of these runs. Their median: " in text
    assert max(map(len, text.splitlines())) <= 110


def test_the_picture_has_a_row_for_each_run_and_letters_for_outcomes(
    worker: Worker, timeline: Timeline
) -> None:
    timeline.wait_for(retry_with_backoff.delay(failures=1, base_seconds=0.05))
    timeline.wait_for(robust_task.delay(failures=1, error="data"))
    svg = timeline.svg()
    assert svg.count("retry_with_backoff") == 2
    for text in ("retry 1", "> R<", "> S<", "> F<", "Runs 3, tasks 2"):
        assert text in svg, text
    bundle = timeline._repr_mimebundle_()
    assert bundle["text/plain"] == timeline.text()
    assert bundle["text/html"] == timeline.html()
    assert timeline.html().count('role="listitem"') == 3


def test_labels_that_are_cut_stay_different() -> None:
    names = ["tasks.import_the_orders_of_the_north", "tasks.import_the_orders_of_the_south"]
    runs = [
        Run(f"order-2026-{number}", name, retries=retries, sent=1.0, redelivered=retries == 1)
        for name in names
        for number in range(2)
        for retries in range(2)
    ]
    for width in (20, 60, 110):
        bars = [line.partition("|")[0].strip() for line in chart(runs, width).splitlines() if "|" in line]
        assert len(set(bars)) == len(runs)
        assert sum(label.endswith("retry 1 redelivered") for label in bars) == 4


@pytest.mark.filterwarnings("error::UserWarning")
def test_the_picture_keeps_its_shape_whatever_the_names_and_endings_are() -> None:
    long = [Run(sign * 500, f"tasks.{sign * 500}", sign * 500, sent=1.0) for sign in "xW@天"]
    ends = [
        Run(str(number), "tasks.add", "worker@host", 0, True, 1.0, 2.0, 3.0, 4.0, outcome)
        for number, outcome in enumerate(ENDINGS)
    ]
    only_an_end = [
        Run("short", started=1.0, ended=1.0001, outcome="failed"),
        Run("far", ended=9.0, outcome="failed"),
    ]
    for runs in (*([one] for one in long), long, ends, only_an_end, only_an_end[1:]):
        for rows in (1, 40):
            ElementTree.fromstring(svg_chart(runs, rows))
        assert max(map(cell_len, chart(runs, 110).splitlines()[:-2])) <= 110


def test_learn_timeline_collects_until_ctrl_c(worker: Worker, tmp_path: Path) -> None:
    svg = tmp_path / "timeline.svg"
    program = subprocess.Popen(
        [sys.executable, "-m", "lab.cli", "timeline", "--svg", str(svg)],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stderr
    assert program.stderr.readline().startswith("Collecting until Ctrl-C")
    with Timeline() as timeline:
        timeline.wait_for(add.delay(1, 2))
    program.send_signal(signal.SIGINT)
    text, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (0, "")
    assert "Runs 1, tasks 1: 1 succeeded." in text
    assert "Runs 1, tasks 1" in svg.read_text()


def test_learn_timeline_refuses_a_picture_in_a_folder_that_does_not_exist(
    worker: Worker, tmp_path: Path
) -> None:
    svg = tmp_path / "nowhere" / "timeline.svg"
    command = [sys.executable, "-m", "lab.cli", "timeline", "--svg", str(svg)]
    program = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (program.returncode, program.stdout) == (2, "")
    assert f"nothing can be written in the folder {svg.parent}" in program.stderr
