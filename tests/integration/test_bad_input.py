"""Bad input gets a clear error, and nothing is lost or half-written."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from celery.exceptions import NotRegistered, QueueNotFound
from kombu.exceptions import EncodeError

from celery_app import app
from lab.evidence import waiting
from lab.sandbox import Sandbox
from monitor import get_queue_length, monitor_task, purge_queue
from settings import ROOT
from tasks.advanced_tasks import fetch_data, idempotent_task, robust_task
from tasks.basic_tasks import add, simple_calculation, task_with_progress
from tests.waiting import wait_for


@pytest.fixture
def worker_sandbox(sandbox: Sandbox) -> Sandbox:
    """Return a sandbox with a worker for basic and advanced."""
    sandbox.start_worker(["basic", "advanced"])
    return sandbox


# --- refused where the task is called: nothing enters a queue ---


def test_a_missing_argument(sandbox: Sandbox) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'b'"):
        add.delay(1)
    assert waiting() == 0


def test_an_argument_that_json_cannot_hold(sandbox: Sandbox) -> None:
    with pytest.raises(EncodeError, match="Object of type object is not JSON serializable"):
        add.delay(object(), 1)
    assert waiting() == 0


def test_a_negative_countdown(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match=r"countdown=-1: must be 0 or more"):
        add.apply_async(args=[1, 2], countdown=-1)
    assert waiting() == 0


def test_a_queue_that_does_not_exist(sandbox: Sandbox) -> None:
    with pytest.raises(QueueNotFound, match="'baisc'"):
        add.apply_async(args=[1, 2], queue="baisc")
    assert waiting() == 0


def test_a_name_that_no_task_has(sandbox: Sandbox) -> None:
    with pytest.raises(NotRegistered, match=r"tasks\.basic_tasks\.ad.*Correct the name"):
        app.send_task("tasks.basic_tasks.ad", args=[1, 2])
    assert waiting() == 0


# --- refused by the worker: the task fails with the field, the value and the remedy ---


def test_arguments_of_the_wrong_type(worker_sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match=r"add: a='four': input should be a valid integer or a valid number"):
        add.delay("four", 5).get(timeout=10)


def test_an_unknown_operation(worker_sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match=r"operation='power': use one of add, subtract, multiply, divide"):
        simple_calculation.delay(2, 3, "power").get(timeout=10)


def test_an_unknown_source(worker_sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match=r"source='atlantis': no such station; use one of east"):
        fetch_data.delay("atlantis").get(timeout=10)


def test_an_unknown_unique_id(worker_sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match=r"unique_id='INV-9': no such invoice; use one of INV-1001"):
        idempotent_task.delay("INV-9").get(timeout=10)


def test_an_unknown_kind_of_error(worker_sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match=r"error='bad': use one of connection, data, unknown"):
        robust_task.delay(1, "bad").get(timeout=10)


def test_progress_over_no_items(worker_sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match=r"total=0: must be 1 or more"):
        task_with_progress.delay(0).get(timeout=10)


# --- messages from elsewhere ---


def raw_message(name: str, body: bytes, content_type: str, task_id: str) -> bytes:
    """Return a message as another program could put it on a Redis queue."""
    import base64

    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "binary" if "python" in content_type else "utf-8",
            "content-type": content_type,
            "headers": {"lang": "py", "task": name, "id": task_id, "root_id": task_id},
            "properties": {
                "correlation_id": task_id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "basic", "routing_key": "basic"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    ).encode()


def test_a_pickle_message_is_refused_unopened_and_the_worker_goes_on(
    worker_sandbox: Sandbox, tmp_path: Path
) -> None:
    # A pickle that would create a file when it is opened.
    trap = tmp_path / "trap"
    body = f"cos\nsystem\n(S'touch {trap}'\ntR.".encode()
    message = raw_message("tasks.basic_tasks.add", body, "application/x-python-serialize", "from-elsewhere")
    worker_sandbox.broker.client().lpush("basic", message)
    log = worker_sandbox.worker.log
    wait_for("it is refused", lambda: "ContentDisallowed" in log.read_text())
    assert add.delay(1, 2).get(timeout=10) == 3
    assert not trap.exists()
    assert monitor_task("from-elsewhere")["state"] == "PENDING"


def test_an_unregistered_task_fails_and_the_worker_goes_on(worker_sandbox: Sandbox) -> None:
    result = app.send_task("no.such.task", queue="basic")
    with pytest.raises(NotRegistered):
        result.get(timeout=10)
    assert add.delay(1, 2).get(timeout=10) == 3


def test_an_unknown_task_id_is_pending_and_the_note_says_what_that_means(sandbox: Sandbox) -> None:
    state = monitor_task("nobody-sent-this")
    assert state["state"] == "PENDING"
    assert "never sent" in state["note"]


@pytest.mark.parametrize("function", [get_queue_length, purge_queue])
def test_the_monitor_refuses_a_queue_that_does_not_exist(sandbox: Sandbox, function: object) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match="queue='baisc': no such queue; use one of basic"):
        function("baisc")


# --- programs ---


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-c", code, **environment)


@pytest.mark.parametrize("url", ["reids://localhost/0", "localhost:6379", "http://localhost"])
def test_a_misspelled_broker_url(url: str) -> None:
    program = python("import celery_app", CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND="redis://localhost/1")
    assert program.returncode == 2
    assert program.stderr.startswith(f"Setting refused: CELERY_BROKER_URL={url!r}")
    assert "redis://" in program.stderr
    assert len(program.stderr.splitlines()) == 1


def test_a_url_whose_password_has_a_slash_is_refused_and_the_password_not_shown() -> None:
    program = python("import celery_app", CELERY_BROKER_URL="redis://:sec/ret@localhost:6379/0")
    assert program.returncode == 2
    assert program.stderr.startswith("Setting refused: CELERY_BROKER_URL='redis://**@localhost:6379/0'")
    assert "write %2F for /" in program.stderr


def test_a_broker_url_without_a_result_backend() -> None:
    program = python("import celery_app", CELERY_BROKER_URL="redis://localhost/0")
    assert program.returncode == 2
    assert "set CELERY_RESULT_BACKEND too" in program.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("CELERY_PROFIL=fast", "CELERY_PROFIL in .env is not a setting"),
        ("PERIODIC_TASK_SECONDS=soon", "PERIODIC_TASK_SECONDS='soon'"),
        ("PERIODIC_TASK_SECONDS=-1", "PERIODIC_TASK_SECONDS='-1': Input should be greater than 0"),
    ],
)
def test_a_bad_line_in_the_env_file(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / ".env").write_text(line + "\n")
    (tmp_path / "settings.py").write_text((ROOT / "settings.py").read_text())
    program = subprocess.run(
        [sys.executable, "settings.py"], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert program.returncode == 2
    assert message in program.stderr
    assert len(program.stderr.splitlines()) == 1


def test_a_second_worker_with_the_same_name(sandbox: Sandbox) -> None:
    sandbox.start_worker(["basic"])
    name = next(iter((app.control.ping(timeout=1) or [{}])[0]))
    program = run(sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--hostname", name)
    assert program.returncode == 1
    assert f"A worker named {name} runs already" in program.stderr
    assert "--hostname=" in program.stderr


@pytest.mark.parametrize(
    "command",
    ["worker", "beat", "inspect active", "status", "flower", "control shutdown", "purge -f"],
)
def test_celery_commands_say_in_one_line_that_the_broker_is_away(command: str) -> None:
    program = run(
        *[sys.executable, "-m", "celery", "-A", "celery_app", *command.split()],
        CELERY_BROKER_URL="redis://:secret@127.0.0.1:1/0",
        CELERY_RESULT_BACKEND="redis://127.0.0.1:1/1",
    )
    assert program.returncode == 1
    assert "The broker at redis://:**@127.0.0.1:1/0 does not answer" in program.stderr
    assert "correct CELERY_BROKER_URL" in program.stderr
    assert len(program.stderr.splitlines()) == 1
    assert "secret" not in program.stdout + program.stderr


@pytest.mark.parametrize(
    "command", ["-m lab.cli", "-m lab.cli example basic", "examples/advanced_usage.py", "monitor.py"]
)
def test_our_programs_say_in_one_line_that_the_broker_is_away(command: str) -> None:
    program = run(
        *[sys.executable, *command.split()],
        CELERY_BROKER_URL="redis://127.0.0.1:1/0",
        CELERY_RESULT_BACKEND="redis://127.0.0.1:1/1",
    )
    assert program.returncode == 1
    assert "The broker at redis://127.0.0.1:1/0 does not answer" in program.stderr
    assert len(program.stderr.splitlines()) == 1
