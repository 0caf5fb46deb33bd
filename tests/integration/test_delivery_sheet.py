"""Each cell of the table in docs/cheatsheets/delivery.md: its words choose what is tried on real workers."""

import json
import os
import re
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from celery.result import AsyncResult

from lab.evidence import is_running, unacknowledged, waiting
from lab.faults import kill_child
from lab.sandbox import Sandbox
from settings import ROOT
from tasks.basic_tasks import add
from tests.helper_tasks import fail_when_released, mark_and_wait
from tests.waiting import lines, wait_for
from tests.workers import start

SHEET = (ROOT / "docs/cheatsheets/delivery.md").read_text()
_TABLE, _, _ = SHEET.partition("What a restart of the broker does")  # that table: test_broker_restart.py
_LINES = [line.split(" | ") for line in re.findall(r"^\| (.+) \|$", _TABLE, re.MULTILINE)]
HEAD, *ROWS = [cells for cells in _LINES if len(cells) == 3]


class Scene:
    """A task that runs on a worker until the file `release` exists."""

    def __init__(self, sandbox: Sandbox, room: Path, event: str, pool: str = "prefork") -> None:
        self.sandbox = sandbox
        self.runs, self.release = room / "runs", room / "release"
        self.worker = start(sandbox, pool=pool)
        task = fail_when_released if event == "the task raises" else mark_and_wait
        self.result: AsyncResult = task.delay(str(self.runs), str(self.release))
        wait_for("it runs", lambda: lines(self.runs))
        wait_for("the worker knows", lambda: self.result.state == "STARTED")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker, and wait until it has heard."""
        os.kill(self.worker.pid, number)
        wait_for("it has heard", lambda: "shutdown" in self.worker.log.read_text())


EVENTS: dict[str, Callable[[Scene], object]] = {
    "the worker is killed (SIGKILL)": lambda scene: scene.worker.kill(),
    "its pool child is killed": lambda scene: kill_child(scene.worker, scene.result.id),
    "the task raises": lambda scene: scene.release.touch(),
    "SIGTERM to the worker": lambda scene: scene.signal(signal.SIGTERM),
    "SIGQUIT to the worker": lambda scene: scene.signal(signal.SIGQUIT),
    "it takes longer than the visibility timeout": lambda scene: None,
}


def is_lost(scene: Scene, state: str = "STARTED") -> None:
    wait_for("the end of the worker", lambda: not is_running(scene.worker))
    assert waiting() == unacknowledged() == 0
    scene.release.touch()
    start(scene.sandbox)
    assert add.delay(1, 1).get(timeout=20) == 2  # the new worker works, and has nothing else to do
    assert (scene.result.state, len(lines(scene.runs))) == (state, 1)


def is_redelivered(scene: Scene) -> None:
    if not is_running(scene.worker):
        assert unacknowledged() == 1
        start(scene.sandbox)
    wait_for("the second run", lambda: len(lines(scene.runs)) == 2, seconds=30)
    assert not scene.release.exists()  # where the first worker lives, the first run has not ended
    scene.release.touch()


def fails(scene: Scene) -> None:
    assert isinstance(scene.result.get(timeout=30, propagate=False), Exception)
    wait_for("nothing is left", lambda: waiting() == unacknowledged() == 0)
    assert (scene.result.state, len(lines(scene.runs))) == ("FAILURE", 1)


def ends_first(scene: Scene) -> None:
    assert is_running(scene.worker)
    scene.release.touch()
    assert scene.result.get(timeout=20) == "released"
    wait_for("the end of the worker", lambda: not is_running(scene.worker))
    assert (waiting(), unacknowledged(), len(lines(scene.runs))) == (0, 0, 1)


def is_given_back(scene: Scene) -> None:
    wait_for("the end of the worker", lambda: not is_running(scene.worker))
    assert "Initiating Soft Shutdown" in scene.worker.log.read_text()
    assert (waiting(), unacknowledged(), len(lines(scene.runs))) == (1, 0, 1)


def does_not_concern_it(scene: Scene) -> None:
    assert waiting() == unacknowledged() == 0  # there is nothing to deliver again
    scene.release.touch()


CHECKS: dict[str, Callable[[Scene], None]] = {
    "lost": is_lost,
    "lost, though its state becomes RETRY": partial(is_lost, state="RETRY"),
    "delivered again after the visibility timeout": is_redelivered,
    "delivered again while it still runs": is_redelivered,
    "FAILURE": fails,
    "FAILURE; with `task_retry_on_worker_lost` retried, at most `max_retries` times": fails,
    "FAILURE, acknowledged": fails,
    "the task ends first": ends_first,
    "given back to the queue after the soft shutdown": is_given_back,
    "\N{EN DASH}": does_not_concern_it,
}
CELLS = [
    pytest.param(event, late, cell, id=f"{event}-{'late' if late else 'early'}")
    for event, *cells in ROWS
    for late, cell in enumerate(cells)
]


@pytest.mark.parametrize(("event", "late", "cell"), CELLS)
def test_a_cell_says_what_happens(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    event: str,
    late: int,
    cell: str,
) -> None:
    conf = {
        "task_acks_late": bool(late),
        "task_retry_on_worker_lost": False,
        "worker_soft_shutdown_timeout": 0.5,
    }
    monkeypatch.setenv("TEST_CONF", json.dumps(conf))
    fixture = "drill_sandbox" if "visibility timeout" in event + cell else "sandbox"
    scene = Scene(request.getfixturevalue(fixture), tmp_path, event)
    EVENTS[event](scene)
    CHECKS[cell](scene)


def test_a_lost_child_is_retried_with_the_setting_that_the_sheet_names(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    scene = Scene(sandbox, tmp_path, "its pool child is killed")  # the app has the setting
    kill_child(scene.worker, scene.result.id)
    wait_for("the second run", lambda: len(lines(scene.runs)) == 2, seconds=30)
    scene.release.touch()
    assert scene.result.get(timeout=20) == "released"


def test_sigquit_on_threads_waits_for_the_task(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_CONF", json.dumps({"worker_soft_shutdown_timeout": 0.5}))
    scene = Scene(sandbox, tmp_path, "SIGQUIT to the worker", pool="threads")
    scene.signal(signal.SIGQUIT)
    wait_for("the end of the soft shutdown", lambda: "Unrecoverable error" in scene.worker.log.read_text())
    ends_first(scene)


def test_sigquit_on_solo_fails_the_task(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_CONF", json.dumps({"worker_soft_shutdown_timeout": 0.5}))
    scene = Scene(sandbox, tmp_path, "SIGQUIT to the worker", pool="solo")
    scene.signal(signal.SIGQUIT)
    fails(scene)
    assert "NotImplementedError" in repr(scene.result.result)


def test_the_table_has_a_row_for_each_event() -> None:
    assert HEAD == ["event", "early acknowledgement", "late acknowledgement"]
    assert [event for event, *_ in ROWS] == list(EVENTS)
