"""The one Celery app. Read it from top to bottom: each setting says what goes wrong without it.

Workers, beat, Flower, scripts and notebooks all use this app:

    celery -A celery_app worker --loglevel=info --queues=basic,advanced,realworld
"""

import fcntl
import os
import pkgutil
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.beat import PersistentScheduler
from celery.exceptions import NotRegistered
from celery.schedules import crontab
from celery.signals import beat_init, celeryd_init, user_preload_options
from click import Option
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

import tasks
from settings import server_of, settings, without_password
from transport import BACKENDS, Messages, check_options, explain

# --- Queues: a task module's name is its queue's name -------------------------------------------------

# The order in which a learner meets them. A new module tasks/x_tasks.py adds the queue x by itself.
_FIRST_QUEUES = ("basic", "advanced", "realworld")

TASK_MODULES = [
    f"tasks.{module.name}"
    for module in pkgutil.iter_modules(tasks.__path__)
    if module.name.endswith("_tasks")
]


def queue_of(module: str) -> str:
    """Return the queue of a task module: `tasks.basic_tasks` -> `basic`."""
    return module.rpartition(".")[2].removesuffix("_tasks")


QUEUES = list(dict.fromkeys([*_FIRST_QUEUES, *map(queue_of, TASK_MODULES)]))


def route_by_module(
    name: str, args: Any, kwargs: Any, options: dict[str, Any], **_: Any
) -> dict[str, str] | None:
    """Send each task to the queue of the module that defines it, whatever name the task has.

    A route by name pattern ("tasks.basic_tasks.*") silently misses tasks with an explicit name.
    Raises `NotRegistered` for a name that this program does not know, unless the caller names a queue.
    """
    if "queue" in options:
        return None
    if name not in app.tasks:  # sent by name, as `celery call` does; its module may not be imported yet
        app.loader.import_default_modules()
    if name not in app.tasks:
        raise NotRegistered(
            f"{name!r}: no task has this name here, so no queue follows from it. "
            "Correct the name, or pass queue="
        )
    module = app.tasks[name].__module__
    return {"queue": queue_of(module)} if module in TASK_MODULES else None


# --- The task class: what would go wrong silently later is refused where the task is called -----------


class AppTask(Task):
    """The base of every task of this app."""

    # Celery's default is 180 seconds, a long wait for somebody who watches.
    default_retry_delay = 1
    max_retries = 3

    def __init_subclass__(cls, **details: Any) -> None:
        """Check the options that the task was defined with."""
        super().__init_subclass__(**details)
        check_options({"priority": cls.priority, "expires": cls.expires})

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:  # type: ignore[override]
        """Send the task, as Celery does, with two kinds of errors made clear.

        Raises `ValueError` for options that Celery would misunderstand (see `check_options`).
        Raises `OperationalError` with the reason if the broker or the result backend does not take it.
        """
        check_options(options)
        if self.app.conf.task_always_eager:  # it runs here, and its errors are its own
            return super().apply_async(args, kwargs, **options)
        try:
            return super().apply_async(args, kwargs, **options)
        except OperationalError as error:
            given = options.get("connection") or getattr(options.get("producer"), "connection", None)
            trouble = broker_trouble(error, given.as_uri() if given else "")
            raise OperationalError(f"{self.name} was not sent. {trouble}") from error

    def retry(self, *args: Any, **options: Any) -> Any:
        """Retry the task, as Celery does. Raises `ValueError` for options that it would misunderstand.

        Without this, an error in an option drops the message, and the task is STARTED for ever.
        """
        check_options(options)
        return super().retry(*args, **options)


def broker_trouble(error: BaseException, address: str = "") -> str:
    """Return one line that names the server, what it answered, and the remedy.

    `address`: where the broker is, if it is not the app's own.
    """
    trouble = explain(error)
    server = f"broker at {address or without_password(settings.broker_url)}"
    if trouble.in_result_backend and (
        address or server_of(settings.result_backend) != server_of(settings.broker_url)
    ):
        server = f"result backend at {without_password(settings.result_backend)}"
    remedy = "Start it, or correct CELERY_BROKER_URL and CELERY_RESULT_BACKEND."
    if settings.uses_sandbox and not address:
        remedy = "Start it with ./learn up, or name another in .env."
    return f"The {server} {trouble.does} ({trouble.words}). {trouble.remedy or remedy}"


app = Celery("celery_learning", amqp=Messages, task_cls=AppTask, include=TASK_MODULES)
# With Celery's own, running tasks that write their progress fail when the connection to Redis is lost, and
# so does whoever waits for a result. What is wrong there, and in the connections to the broker: transport.py.
app.loader.override_backends = BACKENDS

# --- Where ----------------------------------------------------------------------------------------------

app.conf.update(
    # Without a broker URL Celery silently tries amqp://localhost.
    broker_url=settings.broker_url,
    result_backend=settings.result_backend,
    # Without this, a worker that starts before its broker gives up, and a warning says so.
    broker_connection_retry_on_startup=True,
)

# --- What may be in a message ---------------------------------------------------------------------------

app.conf.update(
    # Pickle runs code on load: whoever can write to the queue would own the worker.
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    # One clock for all machines. Schedules are read in this time zone.
    enable_utc=True,
    timezone=settings.timezone,
)

# --- Queues and routes ----------------------------------------------------------------------------------

app.conf.update(
    task_queues=[Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
    task_routes=(route_by_module,),
    # Without a name here, a task with no route goes to a queue "celery" that no worker of ours reads.
    task_default_queue="basic",
    task_default_exchange="basic",
    task_default_routing_key="basic",
    # Without this, a misspelled queue is created, and its messages wait there for ever.
    task_create_missing_queues=False,
)

# --- Delivery: three profiles, side by side -------------------------------------------------------------

LONGEST_TASK = 300  # seconds

RELIABLE: dict[str, Any] = {
    # Acknowledge after the task, not before: a worker killed in the middle leaves the message in the queue.
    "task_acks_late": True,
    # A killed pool child fails its task. Retry it, but not for ever: the task may be what kills the child.
    "task_retry_on_worker_lost": True,
    # One unacknowledged message for each pool child. With the default 4, short tasks wait behind a long one.
    "worker_prefetch_multiplier": 1,
    # Without limits, one task that hangs occupies its pool child until somebody notices.
    "task_soft_time_limit": LONGEST_TASK - 30,
    "task_time_limit": LONGEST_TASK,
    # SIGTERM waits for running tasks, however long. SIGQUIT waits this long, then gives them back to the
    # queue; by default it gives up on them at once. REMAP_SIGTERM=SIGQUIT makes SIGTERM do the same.
    "worker_soft_shutdown_timeout": 10.0,
    "task_ignore_result": False,
    "task_track_started": True,
    "worker_send_task_events": True,
    "task_send_sent_event": True,
    # Longer than the longest task and the longest countdown: Redis delivers again what is not
    # acknowledged in this time, even while it is still running.
    "visibility_timeout": 3600,
}

# Fire and forget: more tasks per second, and a killed worker loses what it had taken.
FAST: dict[str, Any] = RELIABLE | {
    "task_acks_late": False,
    "task_retry_on_worker_lost": False,
    "worker_prefetch_multiplier": 64,
    "task_ignore_result": True,
    "task_track_started": False,
    "worker_send_task_events": False,
    "task_send_sent_event": False,
}

# For lessons about failure only: redelivery within seconds. In production a task that takes longer
# than the visibility timeout would run twice.
DRILL: dict[str, Any] = RELIABLE | {
    "visibility_timeout": 3,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
    # A worker that is killed while it puts messages back keeps the others from it: by default for 5 minutes.
    "unacked_mutex_expire": 1,
}

PROFILES = {"reliable": RELIABLE, "fast": FAST, "drill": DRILL}
_REDIS_OPTIONS = {
    "visibility_timeout",
    "unacked_restore_interval",
    "unacked_restore_throttle",
    "unacked_mutex_expire",
}

profile = PROFILES[settings.celery_profile]
app.conf.update({key: value for key, value in profile.items() if key not in _REDIS_OPTIONS})

# --- Redis ----------------------------------------------------------------------------------------------

app.conf.update(
    broker_transport_options={
        **{key: value for key, value in profile.items() if key in _REDIS_OPTIONS},
        # Ten real priorities; by default Redis has four lists. 0 is served first. Publisher and worker
        # must have the same steps, or messages stay where nobody looks.
        "priority_steps": list(range(10)),
        # Without these, a frozen broker blocks .delay() for more than 45 seconds.
        "socket_timeout": 1,
        "socket_connect_timeout": 1,
        # Sentinel watches several servers. Without a name, it cannot say where ours is. Redis ignores this.
        "master_name": settings.sentinel_master,
    },
    # A failed publish raises at once. The caller decides whether to try again. (Workers and beat: below.)
    task_publish_retry_policy={"max_retries": 0},
    # The same for results. By default .delay() waits 19 seconds when the result backend is away.
    redis_socket_timeout=1.0,
    redis_socket_connect_timeout=1.0,
    result_backend_transport_options={
        "retry_policy": {"max_retries": 0},
        "master_name": settings.sentinel_master,
    },
)

# --- Results --------------------------------------------------------------------------------------------

app.conf.update(
    # Results stay in Redis memory until they expire. One hour is enough for a caller that waits.
    result_expires=3600,
    # Failures are looked at later, often the next day.
    result_failure_expires=86_400,
    # Keep the task's name and arguments with its result, so that a bare task id can be explained.
    result_extended=True,
)

# --- Workers --------------------------------------------------------------------------------------------

app.conf.update(
    # A child is replaced after this many tasks, or above this memory (KiB): leaks stay small.
    worker_max_tasks_per_child=1000,
    worker_max_memory_per_child=400_000,
    # Without this, Celery removes the log handlers that a program has set up itself.
    worker_hijack_root_logger=False,
    # Each line of a task's log names the task, so that lines of parallel tasks can be told apart.
    worker_task_log_format=(
        "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"
    ),
)

# --- Schedule -------------------------------------------------------------------------------------------

app.conf.update(
    # beat remembers here when each entry ran. Without the file, each restart starts all periods anew.
    beat_schedule_filename=str(settings.state_dir / "celerybeat-schedule"),
    # Two beats send everything twice. Without this, a second one starts, with the same file too.
    beat_scheduler="celery_app:OneScheduler",
    # Every entry has `expires` shorter than its period: without a worker, no backlog piles up.
    beat_schedule={
        "periodic-task": {
            "task": "tasks.basic_tasks.periodic_task",
            "schedule": settings.periodic_task_seconds,
            "options": {"queue": "basic", "expires": settings.periodic_task_seconds * 0.9},
        },
        "daily-task": {
            "task": "tasks.basic_tasks.daily_task",
            "schedule": crontab(hour="2", minute="0"),
            "options": {"queue": "basic", "expires": 3600},
        },
        "fail-lost-tasks": {
            "task": "tasks.ai_tasks.fail_lost_tasks",
            "schedule": 30.0,
            "options": {"queue": "ai", "expires": 25},
        },
    },
)


class OneScheduler(PersistentScheduler):
    """beat's scheduler, which lets no second beat use its schedule file. It cannot see other machines."""

    schedule_filename: str

    def setup_schedule(self) -> None:
        """Lock the file, and read it. Raises `SystemExit` if another beat has it.

        The lock ends with the process, however that ends, so a crash leaves nothing to clean up.
        """
        path = Path(f"{self.schedule_filename}.lock")
        self._lock = path.open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = path.read_text() or "unknown"
            raise SystemExit(
                f"A beat runs already, process {other}: it has {self.schedule_filename}. "
                "Two would send everything twice. Stop that one first."
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        super().setup_schedule()


# --- Workers and beat are patient -----------------------------------------------------------------------

# A caller must fail fast. Here nobody waits, and what cannot be sent or stored is lost: the next step of a
# chain, the result of an hour's work. So try for about a minute, long enough for a broker to restart.
_TRIES = 60  # one each second
PATIENT: dict[str, Any] = {
    "task_publish_retry_policy": {"max_retries": _TRIES, "interval_start": 0.1, "interval_max": 1},
    "result_backend_transport_options": {"retry_policy": {"max_retries": _TRIES}},
    # A worker on a busy machine must not take a slow answer for a dead broker.
    "broker_transport_options": {"socket_timeout": 10},
    "redis_socket_timeout": 10.0,
}


def be_patient(conf: Any) -> None:
    """Put these settings into effect. Other options, also those of the command line, stay as they are."""
    for name, value in PATIENT.items():
        conf[name] = conf[name] | value if name.endswith("_options") else value


# --- Start-up checks ------------------------------------------------------------------------------------


def require_broker() -> None:
    """Raise `SystemExit` with one clear line if the broker does not answer within about a second."""
    with app.connection_for_write() as connection:
        try:
            connection.transport.establish_connection()
        except connection.connection_errors + connection.channel_errors as error:
            raise SystemExit(broker_trouble(error)) from None


# Celery's own commands would go on trying to connect, some for ever. The option gives that back.
app.user_options["preload"].add(
    Option(["--wait-for-broker"], is_flag=True, help="Do not stop if the broker does not answer now.")
)


@user_preload_options.connect
def _check_before_any_celery_command(options: dict[str, Any], **_: Any) -> None:
    settings.state_dir.mkdir(parents=True, exist_ok=True)  # for beat's schedule file
    if not options["wait_for_broker"]:
        require_broker()


@celeryd_init.connect
def _prepare_worker(sender: str, conf: Any, options: dict[str, Any], **_: Any) -> None:
    for queue in options.get("queues") or ():
        if queue not in app.amqp.queues:
            raise SystemExit(f"queue={queue!r}: no such queue; use one of {', '.join(QUEUES)}")
    # Two workers with one name answer for each other: a command for one reaches any of them.
    if not options.get("without_mingle") and app.control.ping([sender], timeout=0.5, limit=1):
        raise SystemExit(
            f"A worker named {sender} runs already. Stop it, or name this one: --hostname=second@%h"
        )
    be_patient(conf)


@beat_init.connect
def _prepare_beat(sender: Any, **_: Any) -> None:
    be_patient(sender.app.conf)
