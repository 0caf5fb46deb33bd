"""Bad input gets a clear error, and nothing is lost or half-written."""

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import chain, chord, group
from celery.exceptions import NotRegistered, QueueNotFound
from kombu.exceptions import EncodeError, OperationalError
from redis.exceptions import ReadOnlyError

from broker import broker_channel
from celery_app import app
from lab.evidence import waiting
from lab.sandbox import Sandbox
from monitor import get_queue_length, monitor_task, purge_queue
from settings import ROOT, Settings, server_of, without_password
from tasks.advanced_tasks import fetch_data, idempotent_task, robust_task
from tasks.basic_tasks import add, count_words, simple_calculation, task_with_progress
from tests.helper_tasks import retry_at
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


NAIVE = datetime(2030, 1, 1, 12)
WRONG_OPTIONS = [
    ({"countdown": -1}, "countdown=-1: must be 0 or more"),
    (
        {"eta": NAIVE},
        r"eta=datetime.datetime\(2030, 1, 1, 12, 0\): has no time zone; use datetime.now\(UTC\)",
    ),
    ({"eta": "2030-01-01T12:00:00"}, "eta='2030-01-01T12:00:00': has no time zone"),
    ({"eta": "2030-01-01"}, "eta='2030-01-01': has no time zone"),
    ({"eta": "tomorrow"}, "eta='tomorrow': not a date and time"),
    ({"eta": date(2030, 1, 1)}, r"eta=datetime.date\(2030, 1, 1\): not a date and time"),
    ({"eta": 300}, "eta=300: not a date and time.*countdown=300"),
    ({"expires": NAIVE}, "expires=.*: has no time zone; .*expires=300"),
    ({"expires": "2030-01-01T12:00:00"}, "expires=.*: has no time zone"),
    ({"priority": 10}, "priority=10: must be a whole number from 0, served first, to 9"),
    ({"priority": -1}, "priority=-1: must be"),
    ({"priority": "high"}, "priority='high': must be"),
    ({"priority": 3.0}, "priority=3.0: must be"),
    ({"priority": True}, "priority=True: must be"),
]

# Each way on which a task and its options travel.
WAYS: dict[str, Callable[[dict[str, Any]], object]] = {
    "apply_async": lambda wrong: add.apply_async((1, 2), **wrong),
    "send_task": lambda wrong: app.send_task("tasks.basic_tasks.add", (1, 2), **wrong),
    "signature": lambda wrong: add.s(1, 2).set(**wrong).delay(),
    "signature, when sent": lambda wrong: add.s(1, 2).apply_async(**wrong),
    "group": lambda wrong: group(add.s(1, 2), add.s(3, 4)).apply_async(**wrong),
    "chain": lambda wrong: chain(add.s(1, 2), add.s(3)).apply_async(**wrong),
    "a later step": lambda wrong: chain(add.s(1, 2), add.s(3).set(**wrong)).delay(),
    "a step behind a group": lambda wrong: chain(
        add.s(1, 2), group(add.s(3), add.s(4)), add.si(5, 6), add.s(7).set(**wrong)
    ).delay(),
    "the body of a chord": lambda wrong: chord([add.s(1, 2)], add.si(3, 4).set(**wrong)).delay(),
    "a callback": lambda wrong: add.apply_async((1, 2), link=add.s(3).set(**wrong)),
    "an error callback": lambda wrong: add.apply_async((1, 2), link_error=add.si(3, 4).set(**wrong)),
}


@pytest.mark.parametrize(("wrong", "message"), WRONG_OPTIONS, ids=str)
@pytest.mark.parametrize("way", ["apply_async", "send_task", "a later step"])
def test_an_option_that_celery_would_misunderstand(
    sandbox: Sandbox, way: str, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        WAYS[way](wrong)
    assert waiting() == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrong", [{"eta": NAIVE}, {"priority": 12}], ids=["eta", "priority"])
def test_such_an_option_on_every_way(sandbox: Sandbox, way: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"has no time zone|must be a whole number"):
        WAYS[way](wrong)
    assert waiting() == 0


@pytest.mark.parametrize(
    "right",
    [
        {"countdown": 0},
        {"eta": datetime(2020, 1, 1, tzinfo=UTC)},
        {"eta": datetime(2020, 1, 1, tzinfo=ZoneInfo("Asia/Shanghai"))},
        {"eta": "2020-01-01T12:00:00+08:00"},
        {"eta": "2020-01-01T12:00:00Z"},
        {"expires": 60.5},
        {"expires": "2099-01-01T12:00:00Z"},
        {"priority": 9},
        {"eta": None, "expires": None, "priority": None, "countdown": None},
    ],
    ids=str,
)
def test_the_right_options_are_taken_on_every_way(sandbox: Sandbox, right: dict[str, Any]) -> None:
    for send in WAYS.values():
        send(right)
    assert waiting() >= len(WAYS)


def test_a_wrong_priority_where_the_task_is_defined() -> None:
    with pytest.raises(ValueError, match="priority='high': must be a whole number"):

        @app.task(priority="high", lazy=False)  # type: ignore[untyped-decorator, call-overload]
        def urgent() -> None:
            """Do it now."""


def test_a_retry_with_a_naive_eta_fails_and_says_so(sandbox: Sandbox) -> None:
    sandbox.start_worker(["basic"], include=["tests.helper_tasks"])
    with pytest.raises(ValueError, match="has no time zone"):
        retry_at.delay("2030-01-01T12:00:00").get(timeout=10)


def test_arguments_that_look_like_a_signature_are_left_alone(sandbox: Sandbox) -> None:
    data = {"subtask_type": None, "task": "celery.chord", "options": {"priority": 99}, "kwargs": {}}
    chain(count_words.s("a"), count_words.si(str(data)), add.si(1, b=data)).delay()
    assert waiting() == 1


@pytest.mark.parametrize("error", [ConnectionError("mine"), OperationalError("mine")], ids=repr)
def test_an_error_of_a_task_that_runs_eagerly_is_its_own(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setitem(app.conf, "task_always_eager", True)
    monkeypatch.setitem(app.conf, "task_eager_propagates", True)

    @app.task(lazy=False)
    def fail() -> None:
        """Raise what is given."""
        raise error

    with pytest.raises(type(error)) as caught:
        fail.delay()
    assert str(caught.value) == "mine"
    with pytest.raises(ValueError, match="has no time zone"):
        fail.apply_async(eta=NAIVE)
    app.tasks.unregister(fail.name)


def test_an_error_that_the_caller_handles_is_not_taken_for_the_brokers(sandbox: Sandbox) -> None:
    def call_in_a_handler() -> None:
        try:
            raise ReadOnlyError("of another server")
        except ReadOnlyError:
            add.apply_async((1, 2), connection=app.connection_for_write("redis://127.0.0.1:1/0"))

    with pytest.raises(OperationalError, match=r"The broker at redis://.*127\.0\.0\.1:1/0 does not answer"):
        call_in_a_handler()


def test_an_error_while_looking_at_the_broker_is_not_taken_for_the_brokers(sandbox: Sandbox) -> None:
    for error in (KeyError("mine"), OSError("mine")):
        with pytest.raises(type(error), match="mine"), broker_channel():
            raise error


def test_the_monitor_takes_a_result_as_well_as_an_id(worker_sandbox: Sandbox) -> None:
    result = add.delay(4, 5)
    result.get(timeout=10)
    assert monitor_task(result) == monitor_task(result.id)
    assert monitor_task(result)["result"] == 9


@pytest.mark.parametrize("wrong", [None, 7, b"id"], ids=repr)
def test_the_monitor_refuses_what_is_neither(sandbox: Sandbox, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"task={wrong!r}: give the id of one task, or its AsyncResult"):
        monitor_task(wrong)


def test_the_monitor_refuses_the_result_of_a_group(sandbox: Sandbox) -> None:
    with pytest.raises(TypeError, match="give the id of one task"):
        monitor_task(group(add.s(1, 2), add.s(3, 4)).delay())


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


RESULTS = {"CELERY_RESULT_BACKEND": "redis://localhost/1"}


def refused(tmp_path: Path, **environment: str) -> str:
    """Return the one line with which the settings refuse these variables. No .env is read."""
    shutil.copy(ROOT / "settings.py", tmp_path)
    program = subprocess.run(
        [sys.executable, "settings.py"],
        env=os.environ | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert program.returncode == 2
    [line] = program.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("reids://localhost/0", "the URL starts with 'reids'; use one of redis://"),
        ("REDIS://localhost/0", "the URL starts with 'REDIS'; use one of redis://"),
        ("localhost:6379", "the URL starts with 'no scheme'"),
        ("http://localhost", "the URL starts with 'http'"),
        ("redis://localhost/zero", "after the host stands the number of a database"),
        ("redis://localhost/0/", "after the host stands the number of a database"),
        ("redis://localhost/-1", "after the host stands the number of a database"),
        ("redis://localhost:6379a/0", "host or port cannot be read"),
        ("redis://localhost:0/0", "host or port cannot be read"),
        ("redis://localhost:65536/0", "host or port cannot be read"),
        ("redis://[::1/0", "host or port cannot be read"),
        ("redis+socket://tmp/redis.sock", "name the socket with its whole path: redis+socket:///path"),
        ("redis+socket://", "name the socket with its whole path"),
        ("redis+socket:///" + "x" * 107, "the path of a socket may have 107 bytes"),
        (
            "redis+socket:///tmp/redis.sock?virtual_host=one",
            "write the number of the database as ?virtual_host=0",
        ),
        ("redis+socket:///tmp/redis.sock?db=1", "write the number of the database as ?virtual_host=0"),
        ("redis://one/0;amqp://two", "of several servers all must have one scheme"),
        ("sentinel://one:26379/0;sentinel://two:x/0", "host or port cannot be read"),
        ("sentinel://one:26379/0;", "the URL starts with 'no scheme'"),
    ],
)
def test_a_broker_url_that_cannot_work(tmp_path: Path, url: str, reason: str) -> None:
    line = refused(tmp_path, CELERY_BROKER_URL=url, **RESULTS)
    assert line.startswith(f"Setting refused: CELERY_BROKER_URL={url!r}: {reason}")


def test_results_on_several_servers_without_sentinel(tmp_path: Path) -> None:
    broker, results = "redis://one/0;redis://two/0", "redis://one/1;redis://two/1"
    line = refused(tmp_path, CELERY_BROKER_URL=broker, CELERY_RESULT_BACKEND=results)
    assert "CELERY_RESULT_BACKEND" in line
    assert "for results sentinel://" in line


@pytest.mark.parametrize(
    "url",
    [
        "redis://:top/secret@localhost:6379/0",
        "redis://user:top#secret@localhost:6379/0",
        "redis://:top?secret@localhost/0",
        "redis://:topsecret@localhost:port/0",
        "redis://:%74opsecret@localhost/zero",
        "redis:topsecret@localhost",
        ":topsecret@localhost:6379",
        "rdis://:topsecret@localhost",
        "sentinel://:topsecret@one/0;sentinel://:top/secret@two/0",
        "sentinel://:topsecret@one/0;sentinel://:topsecret@two/zero",
        "redis://localhost/zero?password=topsecret",
    ],
)
@pytest.mark.parametrize("name", ["CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "DATABASE_URL"])
def test_a_password_in_a_url_that_is_refused_is_not_shown(tmp_path: Path, name: str, url: str) -> None:
    line = refused(tmp_path, **{name: url})
    assert not re.search(r"secret|%74op", line)
    assert f"{name}=" in line


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@one:6379/0", "redis://:**@one:6379/0"),
        ("rediss://user:p%40ss@one/0?ssl_cert_reqs=none", "rediss://user:**@one/0?ssl_cert_reqs=none"),
        ("redis://:p@ss:word@one/0", "redis://:**@one/0"),
        ("sentinel://:a@one/0;sentinel://:b@two/0", "sentinel://:**@one/0;sentinel://:**@two/0"),
        ("redis+socket://:secret@/tmp/redis.sock", "redis+socket://:**@/tmp/redis.sock"),
        ("redis://one/0?password=secret", "redis://one/0?password=**"),
        ("redis://one:6379/0", "redis://one:6379/0"),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("redis://:a@one:6379/0", "redis://:a@one:6379/15", True),
        ("redis://one", "redis://one/1", True),
        ("rediss://one/0?ssl_cert_reqs=none", "rediss://one/1?ssl_cert_reqs=none", True),
        ("redis+socket:///tmp/s?virtual_host=0", "redis+socket:///tmp/s?virtual_host=1", True),
        ("sentinel://one/0;sentinel://two/0", "sentinel://one/1;sentinel://two/1", True),
        ("redis://one/0", "redis://two/0", False),
        ("redis://one:6379/0", "redis://one:6380/0", False),
        ("redis+socket:///tmp/1", "redis+socket:///tmp/2", False),
    ],
)
def test_two_databases_of_one_server(one: str, other: str, same: bool) -> None:
    assert (server_of(one) == server_of(other)) is same


def test_a_broker_url_without_a_result_backend(tmp_path: Path) -> None:
    assert "set CELERY_RESULT_BACKEND too" in refused(tmp_path, CELERY_BROKER_URL="redis://localhost/0")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("TIMEZONE", "Asia/Beijing", "no such time zone; use a name such as Asia/Shanghai"),
        ("TIMEZONE", "asia/shanghai", "no such time zone; the nearest is Asia/Shanghai"),
        ("TIMEZONE", "Europe", "no such time zone"),
        ("TIMEZONE", "../UTC", "no such time zone"),
        ("CELERY_PROFILE", "quick", "Input should be 'reliable', 'fast' or 'drill'"),
        ("PERIODIC_TASK_SECONDS", "soon", "Input should be a valid number"),
        ("PERIODIC_TASK_SECONDS", "-1", "Input should be greater than or equal to 0.1"),
        ("PERIODIC_TASK_SECONDS", "nan", "Input should be less than or equal to 31622400"),
        ("PERIODIC_TASK_SECONDS", "inf", "Input should be less than or equal to 31622400"),
        ("PERIODIC_TASK_SECONDS", "1e12", "Input should be less than or equal to 31622400"),
        ("SMTP_TIMEOUT_SECONDS", "inf", "Input should be less than or equal to 3600"),
        ("SMTP_PORT", "65536", "Input should be less than 65536"),
        ("SMTP_HOST", "smtp://localhost", "write only the host's name or address; the port is SMTP_PORT"),
        ("SMTP_HOST", "localhost:25", "write only the host's name or address; the port is SMTP_PORT"),
        ("MAIL_FROM", "nobody", "write an address such as shop@example.org"),
        ("MAIL_FROM", "Shop <shop@example.org>", "write an address such as shop@example.org"),
        ("FLOWER_USER", "ada:admin", "a colon ends the user name in a login"),
        ("FLOWER_USER", "Zoë", "use ASCII characters only"),
        ("DATABASE_URL", "sqlite://", "name a file that all processes share"),
        ("DATABASE_URL", "sqlite:///:memory:", "name a file that all processes share"),
        ("DATABASE_URL", "postgresql://localhost:port/shop", "host or port cannot be read"),
        ("STATE_DIR", "settings.py", "settings.py is a file; name a folder"),
        ("DATA_DIR", "settings.py/data", "settings.py is a file; name a folder"),
        ("SANDBOX_DIR", "~nobody-has-this-name/s", "no such user's home; write the whole path"),
    ],
)
def test_a_value_that_cannot_work(tmp_path: Path, name: str, value: str, reason: str) -> None:
    line = refused(tmp_path, **{name: value})
    assert line.startswith(f"Setting refused: {name}={value!r}: ")
    assert reason in line


def test_a_password_that_is_refused_is_not_shown(tmp_path: Path) -> None:
    line = refused(tmp_path, FLOWER_PASSWORD="geheim-ä")
    assert line == "Setting refused: FLOWER_PASSWORD=**: use ASCII characters only."


@pytest.mark.parametrize("empty", ["", "  "], ids=repr)
@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_an_empty_variable_means_the_default_and_beats_a_line_in_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, empty: str
) -> None:
    for other in Settings.model_fields:
        monkeypatch.delenv(other.upper(), raising=False)
    monkeypatch.setenv(name.upper(), empty)
    (tmp_path / ".env").write_text(f"{name.upper()}=nonsense\n")
    found = Settings(_env_file=tmp_path / ".env")  # type: ignore[call-arg]
    assert getattr(found, name) == Settings.model_fields[name].default


def test_an_empty_line_in_the_env_file_means_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / ".env").write_text("".join(f"{name.upper()}=\n" for name in Settings.model_fields))
    found = Settings(_env_file=tmp_path / ".env")  # type: ignore[call-arg]
    assert found.model_dump() == Settings(_env_file=None).model_dump()  # type: ignore[call-arg]


def test_a_line_in_the_env_file_that_is_not_a_setting(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CELERY_PROFIL=fast\n")
    assert "CELERY_PROFIL in .env is not a setting" in refused(tmp_path)


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
