"""The app as data: settings that Celery knows, queues that follow from modules, a schedule that expires."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.app.defaults import DEFAULTS

from celery_app import PROFILES, QUEUES, TASK_MODULES, app, queue_of
from settings import ROOT

KNOWN_REDIS_OPTIONS = {
    "visibility_timeout",
    "unacked_restore_interval",
    "unacked_restore_throttle",
    "priority_steps",
    "socket_timeout",
    "socket_connect_timeout",
    "master_name",
}


def own_tasks() -> dict[str, Any]:
    app.loader.import_default_modules()
    return {name: task for name, task in app.tasks.items() if task.__module__ in TASK_MODULES}


def test_no_setting_is_misspelled() -> None:
    source = (ROOT / "celery_app.py").read_text()
    assert "app.conf.update(" in source
    changed = set(app.conf.changes or {}) - {"deprecated_settings"}  # Celery's own note
    assert changed - set(DEFAULTS) == set()
    assert len(changed) > 30  # the check looked at something


def test_no_redis_option_is_misspelled() -> None:
    from kombu.transport.redis import SentinelChannel

    assert set(SentinelChannel.from_transport_options) >= KNOWN_REDIS_OPTIONS
    assert set(app.conf.broker_transport_options) <= KNOWN_REDIS_OPTIONS


def test_profiles_set_the_same_things() -> None:
    assert set(PROFILES["fast"]) == set(PROFILES["reliable"])
    assert set(PROFILES["reliable"]) <= set(PROFILES["drill"])


def test_the_planned_queues_are_there_in_order() -> None:
    assert QUEUES == ["basic", "advanced", "realworld", "ai", "health"]
    assert [queue.name for queue in app.conf.task_queues] == QUEUES


def test_every_task_goes_to_the_queue_of_its_module() -> None:
    tasks = own_tasks()
    assert "simple_calculation" in tasks  # a name that says nothing about the module
    for name, task in tasks.items():
        expected = queue_of(task.__module__)
        assert app.amqp.router.route({}, name, task_type=task)["queue"].name == expected, name
        assert app.amqp.router.route({}, name)["queue"].name == expected, f"{name}, sent by name"


def test_chunks_and_starmap_go_to_the_queue_of_their_task() -> None:
    own_tasks()
    name = "tasks.advanced_tasks.mean_temperature"
    starmap: Any = app.tasks["celery.starmap"]
    route = app.amqp.router.route({}, name, task_type=starmap)
    assert route["queue"].name == "advanced"


def test_a_new_module_gets_a_queue_without_another_edit(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    for source in (ROOT / "tasks").glob("*.py"):
        (tmp_path / "tasks" / source.name).write_text(source.read_text())
    (tmp_path / "tasks" / "video_tasks.py").write_text(
        "from celery_app import app\n@app.task(name='my own name')\ndef cut(): pass\n"
    )
    (tmp_path / "celery_app.py").write_text((ROOT / "celery_app.py").read_text())
    code = (
        "from celery_app import *; print(QUEUES[-1], app.amqp.router.route({}, 'my own name')['queue'].name)"
    )
    program = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert program.stdout == "video video\n", program.stderr


def test_every_scheduled_task_exists_names_its_queue_and_expires_before_the_next() -> None:
    tasks = own_tasks()
    assert app.conf.beat_schedule
    for name, entry in app.conf.beat_schedule.items():
        task = tasks[entry["task"]]
        assert entry["options"]["queue"] == queue_of(task.__module__), name
        period = entry["schedule"]
        if isinstance(period, timedelta):
            period = period.total_seconds()
        if isinstance(period, int | float):
            assert 0 < entry["options"]["expires"] < period, name
        else:  # a crontab: at most hourly
            assert 0 < entry["options"]["expires"] <= 3600, name


def test_every_task_says_what_it_does() -> None:
    for name, task in own_tasks().items():
        assert task.run.__doc__, name


@pytest.mark.parametrize("module", ["celery_app", *TASK_MODULES])
def test_app_and_tasks_do_not_import_the_lab(module: str) -> None:
    code = f"import sys, {module}; print([name for name in sys.modules if name.partition('.')[0] == 'lab'])"
    program = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert program.stdout == "[]\n", program.stderr
