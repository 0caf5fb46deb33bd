"""The claims of notebook 12: pools. A task that tells its process id says where it ran."""

from pathlib import Path

import psutil
import pytest
from celery.exceptions import TimeoutError

from celery_app import app
from lab.evidence import is_running, states, waiting
from lab.sandbox import Sandbox
from lab.wrong_tasks import crash
from tasks.basic_tasks import add
from tests.helper_tasks import mark_and_wait, process_id
from tests.waiting import lines, wait_for
from tests.workers import start

POOLS = ["prefork", "threads", "solo"]


def test_where_a_task_runs(sandbox: Sandbox) -> None:
    """12.1 On prefork a task runs in a child process. On threads and solo it runs in the worker's own
    process."""
    for pool in POOLS:
        worker = start(sandbox, pool=pool)
        pid = process_id.delay().get(timeout=20)
        children = [child.pid for child in psutil.Process(worker.pid).children()]
        assert pid in (children if pool == "prefork" else [worker.pid])
        worker.kill()


def test_threads_wait_together(sandbox: Sandbox, tmp_path: Path) -> None:
    """12.2 A threads pool runs as many waiting tasks at the same time as it has threads, in one process."""
    worker = start(sandbox, pool="threads", concurrency=8)
    runs, release = tmp_path / "runs", tmp_path / "release"
    results = [mark_and_wait.delay(str(runs), str(release)) for _ in range(10)]
    wait_for("eight run", lambda: len(lines(runs)) == 8)
    assert waiting("basic") == 2
    assert set(lines(runs)) == {str(worker.pid)}
    release.touch()
    assert [result.get(timeout=20) for result in results] == ["released"] * 10


@pytest.mark.parametrize(("pool", "processes"), [("prefork", 3), ("threads", 1), ("solo", 1)])
def test_children_are_replaced(sandbox: Sandbox, pool: str, processes: int) -> None:
    """12.3 `--max-tasks-per-child` replaces children on prefork. Threads and solo ignore it without a
    word."""
    worker = start(sandbox, pool=pool, concurrency=1, options=["--max-tasks-per-child", "1"])
    assert len({process_id.delay().get(timeout=20) for _ in range(3)}) == processes
    assert "WARNING" not in worker.log.read_text()


@pytest.mark.parametrize(("kib", "processes"), [("1", 2), ("100000000", 1)])
def test_memory_is_looked_at_after_the_task(sandbox: Sandbox, kib: str, processes: int) -> None:
    """12.4 A child above `--max-memory-per-child` finishes its task, and is replaced after it."""
    start(sandbox, pool="prefork", concurrency=1, options=["--max-memory-per-child", kib])
    assert len({process_id.delay().get(timeout=20) for _ in range(2)}) == processes  # both succeed


@pytest.mark.parametrize("pool", POOLS)
def test_what_a_crash_costs(sandbox: Sandbox, tmp_path: Path, pool: str) -> None:
    """12.5 A crash in a task costs the prefork pool one child. It ends a worker on threads or solo, with all
    its tasks."""
    worker = start(sandbox, pool=pool, concurrency=2)
    runs, release = tmp_path / "runs", tmp_path / "release"
    sent = []
    if pool != "solo":  # another task runs meanwhile
        sent.append(mark_and_wait.delay(str(runs), str(release)))
        wait_for("it runs", lambda: lines(runs))
    result = crash.delay()
    if pool == "prefork":
        assert type(result.get(timeout=30, propagate=False)).__name__ == "WorkerLostError"
        release.touch()
        assert [other.get(timeout=20) for other in sent] == ["released"]
        assert len(lines(runs)) == 1
        assert add.delay(1, 1).get(timeout=20) == 2
        assert is_running(worker)
    else:
        wait_for("the worker has ended", lambda: not is_running(worker))
        assert set(states([*sent, result])) == {"STARTED"}


def test_solo_runs_one(sandbox: Sandbox, tmp_path: Path) -> None:
    """12.6 The solo pool runs one task at a time, whatever `--concurrency` says."""
    start(sandbox, pool="solo", concurrency=4)
    runs, release = tmp_path / "runs", tmp_path / "release"
    first = mark_and_wait.delay(str(runs), str(release))
    wait_for("it runs", lambda: lines(runs))
    second = add.delay(1, 1)
    with pytest.raises(TimeoutError):
        second.get(timeout=0.5)
    assert (len(lines(runs)), second.state) == (1, "PENDING")
    release.touch()
    assert (first.get(timeout=20), second.get(timeout=20)) == ("released", 2)


def test_solo_does_not_answer(sandbox: Sandbox, tmp_path: Path) -> None:
    """12.7 A solo worker answers no remote control while it runs a task."""
    runs, release = tmp_path / "runs", tmp_path / "release"
    start(sandbox, pool="solo")
    result = mark_and_wait.delay(str(runs), str(release))
    wait_for("it runs", lambda: lines(runs))
    assert app.control.ping(timeout=1) == []
    release.touch()
    assert result.get(timeout=20) == "released"
    assert wait_for("it answers again", lambda: app.control.ping(timeout=1, limit=1))


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_others_answer_while_they_work(sandbox: Sandbox, tmp_path: Path, pool: str) -> None:
    """12.8 Prefork and threads workers answer remote control while they run as many tasks as their
    concurrency allows.
    """
    runs, release = tmp_path / "runs", tmp_path / "release"
    start(sandbox, pool=pool, concurrency=2)
    results = [mark_and_wait.delay(str(runs), str(release)) for _ in range(2)]
    wait_for("both run", lambda: len(lines(runs)) == 2)
    assert app.control.ping(timeout=10, limit=1)
    assert states(results) == ["STARTED", "STARTED"]
    release.touch()
    assert [result.get(timeout=20) for result in results] == ["released", "released"]
