"""What a forked child of the supervisor becomes: a Celery worker, or the mail server."""

import gc
import importlib
import os
import sys
from pathlib import Path
from typing import Any

SUBSCRIBED_AFTER_SECONDS = 0.03

# A table and not import statements: a linter removes imports that look unused.
PRELOADED = (
    "celery.app.amqp",
    "celery.app.control",
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.bin.worker",
    "celery.concurrency.prefork",
    "celery.concurrency.solo",
    "celery.events",
    "celery.worker.autoscale",
    "celery.worker.consumer",
    "kombu.transport.redis",
    "pydantic_settings",
    "PIL.Image",
    "PIL.ImageDraw",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.orm",
    "xlsxwriter",
)


def preload() -> None:
    """Import what every worker needs, so that a forked one has it."""
    for name in PRELOADED:
        importlib.import_module(name)
    # The garbage collector then leaves these objects alone: a worker that starts need not copy their memory.
    gc.freeze()


def run_worker(app_name: str, arguments: list[str], tell: int) -> int:
    """Run `celery -A app_name worker arguments…` in this process. Return its exit code.

    Writes one byte to the descriptor `tell` when the worker is ready.
    """
    import click
    from celery.app.utils import find_app
    from celery.bin.base import CLIContext
    from celery.bin.worker import worker
    from celery.signals import worker_ready

    def tell_keeper() -> None:
        os.write(tell, b"1")
        os.close(tell)

    def say_ready(sender: Any, **_: object) -> None:
        # At this signal the worker has not subscribed to remote commands yet. It does so in the first round
        # of its event loop, and a command that comes together with the confirmation waits for the next one.
        sender.timer.call_after(SUBSCRIBED_AFTER_SECONDS, tell_keeper)

    worker_ready.connect(say_ready, weak=False)
    try:
        context = CLIContext(app=find_app(app_name), no_color=True, workdir=None, quiet=False)
        worker.main(arguments, prog_name="celery worker", obj=context, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as done:
        return done.exit_code
    except SystemExit as done:
        if isinstance(done.code, str):
            print(done.code, file=sys.stderr)
        return done.code if isinstance(done.code, int) else 1
    except BaseException:  # noqa: BLE001
        # The last stop before os._exit: without this, the traceback would be lost.
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def run_mail_server(folder: Path) -> int:
    """Serve mail on a socket in `folder` until SIGTERM. Return the exit code."""
    from lab.mail_server import serve

    serve(folder)
    return 0
