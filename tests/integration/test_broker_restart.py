"""The broker restarts while workers, callers and beat use it: all of them go on, and none leaves a traceback.

The sandbox keeps nothing on disk, so what is queued is gone after a restart. `restart_with_its_data` is the
restart of a Redis that does.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kombu
import psutil
import pytest
from celery import chain, chord
from celery.app.backends import by_url
from celery.backends import redis as celerys_own
from celery.exceptions import TimeoutError
from celery.result import AsyncResult
from redis.exceptions import ConnectionError

import transport
from celery_app import PATIENT, app
from lab.sandbox import Broker, Sandbox, Worker
from settings import ROOT
from tasks.basic_tasks import add, task_with_progress
from tests.helper_tasks import mark, mark_and_wait
from tests.waiting import lines, wait_for

RETRIES = 40.0  # seconds: a worker looks for its broker after 2, 4, 6 … seconds


@pytest.fixture
def start(sandbox: Sandbox) -> Callable[..., Worker]:
    """Return a function that starts a worker for the queues basic and advanced."""

    def start(pool: str = "prefork", *include: str) -> Worker:
        return sandbox.start_worker(
            ["basic", "advanced"], include=["tests.helper_tasks", *include], pool=pool
        )

    return start


@pytest.fixture
def release(tmp_path: Path) -> Iterator[Path]:
    """Return the file that `mark_and_wait` waits for. It is there at the end of the test at the latest."""
    yield tmp_path / "release"
    (tmp_path / "release").touch()


def run_until(release: Path) -> AsyncResult:
    """Send a task that runs until `release` exists, and return when it runs."""
    result = mark_and_wait.delay(str(release.with_name("runs")), str(release))
    wait_for("it runs", lambda: result.state == "STARTED" and lines(release.with_name("runs")))
    return result


def take_down(sandbox: Sandbox, worker: Worker, how: str = "stop") -> None:
    """End the broker, and return when the worker has noticed."""
    getattr(sandbox.broker, how)()
    wait_for("the worker has noticed", lambda: "Cannot connect to" in worker.log.read_text())


def restart_with_its_data(broker: Broker) -> None:
    """Kill the broker, and start it with all that it held."""
    broker.client().save()
    broker.kill()
    broker.start()
    broker.socket.with_name("dump.rdb").unlink()


def assert_went_on(worker: Worker) -> None:
    """The worker takes new tasks, it is the same process, and its log shows no traceback."""
    assert add.delay(1, 2).get(timeout=RETRIES) == 3
    assert psutil.Process(worker.pid).status() != psutil.STATUS_ZOMBIE
    assert "Traceback" not in worker.log.read_text()


# --- workers ---


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_with_a_running_task_goes_on_and_the_task_succeeds(
    sandbox: Sandbox, start: Callable[..., Worker], release: Path, pool: str
) -> None:
    worker = start(pool)
    result = run_until(release)
    sandbox.broker.restart()
    release.touch()
    assert result.get(timeout=15) == "released"
    assert_went_on(worker)
    assert result.state == "SUCCESS"


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_with_an_eta_task_goes_on(sandbox: Sandbox, start: Callable[..., Worker], pool: str) -> None:
    worker = start(pool)
    add.apply_async((1, 2), countdown=600)
    wait_for("the worker holds it", lambda: sandbox.broker.client().hlen("unacked") == 1)
    sandbox.broker.restart()
    assert_went_on(worker)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_an_idle_worker_goes_on(sandbox: Sandbox, start: Callable[..., Worker], pool: str) -> None:
    worker = start(pool)
    sandbox.broker.restart()
    assert_went_on(worker)


def test_a_worker_whose_children_are_all_busy_goes_on(
    sandbox: Sandbox, start: Callable[..., Worker], release: Path
) -> None:
    worker = start()
    results = [run_until(release) for _ in range(2)]
    sandbox.broker.restart()
    release.touch()
    assert [result.get(timeout=15) for result in results] == ["released", "released"]
    assert_went_on(worker)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_task_that_ends_while_the_broker_is_away_succeeds(
    sandbox: Sandbox, start: Callable[..., Worker], release: Path, pool: str
) -> None:
    worker = start(pool)
    result = run_until(release)
    take_down(sandbox, worker, "kill")
    release.touch()
    sandbox.broker.start()
    assert result.get(timeout=RETRIES) == "released"
    assert_went_on(worker)


def test_a_task_that_reports_its_progress_while_the_broker_is_away_succeeds(
    sandbox: Sandbox, start: Callable[..., Worker]
) -> None:
    worker = start()
    result: Any = task_with_progress.delay(total=60, seconds_per_item=0.05)
    wait_for("it reports", lambda: result.state == "PROGRESS")
    take_down(sandbox, worker)
    sandbox.broker.start()
    assert result.get(timeout=RETRIES) == {"total": 60, "status": "done"}
    assert_went_on(worker)


def test_the_next_step_of_a_chain_is_sent_when_the_broker_is_back(
    sandbox: Sandbox, start: Callable[..., Worker], release: Path
) -> None:
    worker = start()
    runs, body = release.with_name("runs"), release.with_name("body")
    result = chain(mark_and_wait.si(str(runs), str(release)), mark.si(str(body))).delay()
    wait_for("the first step runs", lambda: lines(runs))
    take_down(sandbox, worker)
    release.touch()
    sandbox.broker.start()
    result.get(timeout=RETRIES)
    assert len(lines(body)) == 1
    assert_went_on(worker)


def test_a_chord_goes_on_after_a_restart_that_keeps_the_data(
    sandbox: Sandbox, start: Callable[..., Worker], release: Path
) -> None:
    worker = start()
    runs, body = release.with_name("runs"), release.with_name("body")
    header = [mark_and_wait.si(str(runs), str(release))] * 2
    result = chord(header, mark.si(str(body))).delay()
    wait_for("the header runs", lambda: len(lines(runs)) == 2)
    restart_with_its_data(sandbox.broker)
    release.touch()
    result.get(timeout=RETRIES)
    assert len(lines(body)) == 1
    assert_went_on(worker)


def test_a_chord_never_ends_when_its_data_is_gone(
    sandbox: Sandbox, start: Callable[..., Worker], release: Path
) -> None:
    worker = start()
    header = [mark_and_wait.si(str(release.with_name("runs")), str(release))] * 2
    result = chord(header, mark.si(str(release.with_name("body")))).delay()
    wait_for("the header runs", lambda: len(lines(release.with_name("runs"))) == 2)
    sandbox.broker.restart()
    release.touch()
    wait_for("both end", lambda: worker.log.read_text().count("succeeded in") == 2)
    assert_went_on(worker)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.5)


def test_an_eta_task_is_gone_after_a_restart_without_data_and_late_after_one_with(
    drill_sandbox: Sandbox, tmp_path: Path
) -> None:
    # The worker forgets it. Redis has it as unacknowledged, and delivers it after the visibility timeout.
    drill_sandbox.start_worker(["basic"], include=["tests.helper_tasks"])
    for text, restart in (("gone", Broker.restart), ("late", restart_with_its_data)):
        mark.apply_async((str(tmp_path / "runs"), text), countdown=4)
        wait_for("the worker holds it", lambda: drill_sandbox.broker.client().hlen("unacked") == 1)
        restart(drill_sandbox.broker)
        assert add.delay(1, 2).get(timeout=RETRIES) == 3
    wait_for("it runs", lambda: lines(tmp_path / "runs"), RETRIES)
    assert set(lines(tmp_path / "runs")) == {"late"}


# --- callers ---


def test_a_caller_that_waits_gets_its_result_after_the_broker_was_away(
    sandbox: Sandbox, start: Callable[..., Worker], release: Path
) -> None:
    worker = start()
    result = run_until(release)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(app.AsyncResult(result.id).get, timeout=RETRIES)
        take_down(sandbox, worker)
        release.touch()
        sandbox.broker.start()
        assert waiting.result() == "released"


def test_a_caller_that_waits_longer_than_its_timeout_gets_a_timeout_error(
    sandbox: Sandbox, start: Callable[..., Worker], release: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start()
    result = run_until(release)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(app.AsyncResult(result.id).get, timeout=4)
        sandbox.broker.stop()
        with pytest.raises(TimeoutError, match="timed out"):
            waiting.result()
    sandbox.broker.start()
    assert "The result backend does not answer (Error " in caplog.text


def test_a_result_that_is_stored_while_its_caller_reconnects_is_found(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    result: Any = add.delay(1, 2)
    backend: Any = app.backend
    subscribe = backend.client.pubsub

    def store_and_subscribe(**options: Any) -> Any:
        # Celery has looked for the result, and found none. It subscribes after this.
        backend.store_result(result.id, 3, "SUCCESS")
        return subscribe(**options)

    monkeypatch.setattr(backend.client, "pubsub", store_and_subscribe)
    backend.add_pending_result(result)  # as `get` does before it waits
    backend.result_consumer._reconnect()
    assert result._cache["result"] == 3


def test_after_a_failed_call_earlier_results_still_arrive(
    sandbox: Sandbox, start: Callable[..., Worker], release: Path
) -> None:
    worker = start()
    first = run_until(release)
    take_down(sandbox, worker)
    with pytest.raises(kombu.exceptions.OperationalError):
        add.delay(1, 2)
    sandbox.broker.start()
    assert add.delay(1, 2).get(timeout=RETRIES) == 3
    threading.Timer(0.5, release.touch).start()  # when `get` waits already
    assert first.get(timeout=15) == "released"


# --- beat ---


def test_beat_sends_what_was_due_while_the_broker_was_away(
    sandbox: Sandbox, start: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start()
    log = tmp_path / "log"
    schedule = tmp_path / "schedule"
    with log.open("w") as out:
        beat = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-A", "celery_app", "beat"),
                "-l",
                "info",
                "-s",
                str(schedule),
            ],
            env={**os.environ, "PERIODIC_TASK_SECONDS": "2"},
            cwd=ROOT,
            stdout=out,
            stderr=out,
        )
    try:
        wait_for("a task is sent", lambda: "periodic task at" in worker.log.read_text(), 30)
        take_down(sandbox, worker)
        sent = log.read_text().count("Sending due task")
        wait_for("another is due", lambda: log.read_text().count("Sending due task") > sent)
        sandbox.broker.start()
        done = worker.log.read_text().count("periodic task at")
        wait_for("it runs", lambda: worker.log.read_text().count("periodic task at") > done, RETRIES)
        assert "Traceback" not in log.read_text()
        assert beat.poll() is None
    finally:
        beat.terminate()
        beat.wait(timeout=20)


def test_workers_and_beat_have_a_policy_for_about_a_minute_and_callers_have_none() -> None:
    assert app.conf.task_publish_retry_policy == {"max_retries": 0}
    assert app.conf.result_backend_transport_options["retry_policy"] == {"max_retries": 0}
    assert PATIENT["task_publish_retry_policy"]["max_retries"] == 60


# --- every scheme, and nobody else ---


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost/0", transport.Transport),
        ("rediss://localhost/0?ssl_cert_reqs=required", transport.Transport),
        ("redis+socket:///tmp/redis.sock", transport.Transport),
        ("redis://one/0;redis://two/0", transport.Transport),
        ("sentinel://one:26379/0;sentinel://two:26379/0", transport.SentinelTransport),
    ],
)
def test_every_connection_of_the_app_has_the_mended_transport(url: str, expected: type) -> None:
    for connection in (app.connection_for_read(url), app.connection_for_write(url).clone()):
        assert type(connection.transport) is expected
        connection.maybe_switch_next()  # as when the first host is away
        assert type(connection.transport) is expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost/1", transport.RedisBackend),
        ("rediss://localhost/1?ssl_cert_reqs=required", transport.RedisBackend),
        ("redis+socket:///tmp/redis.sock", transport.RedisBackend),
        ("sentinel://one:26379/1", transport.SentinelBackend),
    ],
)
def test_every_result_backend_of_the_app_is_the_mended_one(url: str, expected: type) -> None:
    found: Any = by_url(url, app.loader)
    assert found[0] is expected


def test_another_app_in_this_process_keeps_kombus_transport() -> None:
    assert type(kombu.Connection("redis://localhost/0").transport) is kombu.transport.redis.Transport


# --- the faults that transport.py mends are still there ---


def needed_no_longer(name: str) -> str:
    return (
        f"with kombu {version('kombu')} {name} in transport.py is needed no longer: remove it, and this test"
    )


def test_with_kombus_own_channel_a_worker_with_a_running_task_ends(
    sandbox: Sandbox, start: Callable[..., Worker], release: Path
) -> None:
    worker = start("prefork", "tests.own_connections")
    run_until(release)
    sandbox.broker.restart()
    release.touch()
    ended = needed_no_longer("_ClosesWithoutItsBroker")
    wait_for(ended, lambda: not psutil.pid_exists(worker.pid), 30)
    assert "'NoneType' object has no attribute 'hostname'" in worker.log.read_text(), ended


@pytest.fixture
def own_backend(sandbox: Sandbox) -> Any:
    """Return Celery's own result backend, with a connection."""
    backend: Any = celerys_own.RedisBackend(app=app, url=sandbox.broker.result_backend.removeprefix("redis+"))
    backend.result_consumer.consume_from("some-id")
    return backend


def test_celerys_own_consumer_gives_up_when_the_broker_is_away(sandbox: Sandbox, own_backend: Any) -> None:
    sandbox.broker.stop()
    try:
        with pytest.raises(RuntimeError, match="Retry limit exceeded"):
            wait_for(
                needed_no_longer("ResultConsumer"), lambda: own_backend.result_consumer.drain_events(0.1), 5
            )
    finally:
        sandbox.broker.start()


def test_celerys_own_backend_does_not_retry_to_read(sandbox: Sandbox, own_backend: Any) -> None:
    own_backend.__dict__["retry_policy"] = {"max_retries": 60}
    sandbox.broker.stop()
    back = threading.Timer(1, sandbox.broker.start)
    back.start()
    with pytest.raises(ConnectionError):
        own_backend.store_result("some-id", 3, "SUCCESS")
    back.join()
