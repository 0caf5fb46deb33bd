"""What a forked child of the supervisor becomes: a Celery worker, or the mail server."""

import gc
import importlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from lab.processes.watchdog import end_with
from lab.processes.wire import StartWorker

SUBSCRIBED_AFTER_SECONDS = 0.03
START_SECONDS = 30  # a worker whose broker does not answer would go on trying for minutes

PROJECT = Path(__file__).parents[2]

# Variables that a program reads once, at its start: a forked worker would go on with the supervisor's.
READ_AT_START = ("REMAP_SIGTERM", "TZ")

# A table and not import statements: a linter removes imports that look unused.
PRELOADED = (
    "celery.app.amqp",
    "celery.app.control",
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.beat",
    "celery.bin.worker",
    "celery.concurrency.prefork",
    "celery.concurrency.solo",
    "celery.events",
    "celery.fixups.django",
    "celery.worker.autoscale",
    "celery.worker.consumer",
    "kombu.transport.redis",
    "email.policy",
    "pydantic.validate_call_decorator",
    "pydantic_settings",
    "PIL.ImageCms",
    "PIL.ImageDraw",
    "PIL.ImageFilter",
    "smtplib",
    "sqlite3",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.orm",
    "xlsxwriter",
)


def preload() -> Iterator[str]:
    """Import what every worker needs, so that a forked one has it. Give the name of each module after it."""
    for name in PRELOADED:
        importlib.import_module(name)
        yield name
    # The garbage collector then leaves these objects alone: a worker that starts need not copy their memory.
    gc.freeze()


def run_worker(order: StartWorker, name: str, tmp: Path, tell: int) -> None:
    """Run the worker that is ordered, with the node name `name`, until it ends.

    Writes one byte to the descriptor `tell` when it is ready. It has `START_SECONDS` for that.
    """
    must_start_anew = any(os.environ.get(key) != order.environment.get(key) for key in READ_AT_START)
    os.environ.clear()
    os.environ.update(order.environment)
    # A worker that is killed leaves temporary files. They go with the sandbox's folder.
    os.environ["TMPDIR"] = tempfile.tempdir = str(tmp)
    os.chdir(order.folder)
    signal.alarm(START_SECONDS)  # it ends the process
    arguments = [*order.arguments, "--hostname", name if "@" in name else f"{name}@%h"]
    if must_start_anew:
        _exec_worker(order.app, arguments, order.path, tell)
    _run(order.app, arguments, order.path, tell)


def _exec_worker(app: str, arguments: list[str], path: list[str] | None, tell: int) -> NoReturn:
    """Run the worker in a new program, in the place of this one. All is imported anew: it takes a second."""
    os.set_inheritable(tell, True)
    # Everybody may read a command line: the environment, with its passwords, is not in it.
    command = [sys.executable, "-m", "lab.processes.worker", json.dumps([app, arguments, path, tell])]
    os.execv(sys.executable, command)  # noqa: S606 - our own command


def _run(app: str, arguments: list[str], path: list[str] | None, tell: int) -> None:
    if path is not None:
        sys.path[:] = [*path, *(entry for entry in sys.path if Path(entry).resolve() != PROJECT)]
    # Where pool children are spawned, each of them imports the main module. That is the supervisor here.
    sys.modules["__main__"] = ModuleType("__main__")
    from celery.app.utils import find_app
    from celery.bin.base import CLIContext
    from celery.bin.worker import worker

    _watch_worker(tell)
    context = CLIContext(app=find_app(app), no_color=True, workdir=None, quiet=False)
    worker.main(arguments, prog_name="celery worker", obj=context)


def _watch_worker(tell: int) -> None:
    """See that the supervisor is told when the worker is ready, and that its pool children end with it."""
    from celery.signals import worker_process_init, worker_ready

    main_process = os.getpid()

    def say_ready() -> None:
        signal.alarm(0)
        os.write(tell, b"1")
        os.close(tell)

    def when_ready(sender: Any, **_: object) -> None:
        # At this signal the worker has not subscribed to remote commands yet. It does so in the first round
        # of its event loop, and a command that comes together with the confirmation waits for the next one.
        sender.timer.call_after(SUBSCRIBED_AFTER_SECONDS, say_ready)

    def when_pool_child_begins(**_: object) -> None:
        if os.getpid() != main_process:  # the pool solo calls its only process a child
            end_with(main_process)

    worker_ready.connect(when_ready, weak=False)
    worker_process_init.connect(when_pool_child_begins, weak=False)


def run_mail_server(folder: Path) -> None:
    """Serve mail on a socket in `folder` until SIGTERM."""
    from lab.mail_server import serve

    serve(folder)


if __name__ == "__main__":
    _run(*json.loads(sys.argv[1]))
