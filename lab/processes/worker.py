"""What a forked child of the supervisor becomes: a Celery worker, or the mail server."""

import gc
import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

PROJECT = Path(__file__).parents[2]
SUBSCRIBED_AFTER_SECONDS = 0.03

# Variables that a program reads once, at its start: a forked worker would go on with the supervisor's.
READ_AT_START = ("REMAP_SIGTERM", "TZ")

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


def run_in_new_program(request: dict[str, Any], tell: int) -> NoReturn:
    """Replace this process by a new one that runs the worker. It takes a second, for all is imported anew."""
    os.set_inheritable(tell, True)
    # Everybody sees the words of a command line: the environment, with its passwords, is not among them.
    shown = json.dumps({key: request[key] for key in ("app", "arguments", "path") if key in request})
    command = [sys.executable, "-m", "lab.processes.worker", shown, str(tell)]
    os.execv(sys.executable, command)  # noqa: S606 - our own command


def run_worker(request: dict[str, Any], tell: int) -> int:
    """Run `celery -A app worker arguments…` in this process. Return its exit code.

    `request`: the `app`, the `arguments`, and by choice the `path`: folders for imports instead of this
    project. Writes one byte to the descriptor `tell` when the worker is ready.
    """
    if "path" in request:
        sys.path[:] = [*request["path"], *(entry for entry in sys.path if Path(entry).resolve() != PROJECT)]
    # Where children of the pool are spawned, each of them imports the main module. That is the supervisor.
    sys.modules["__main__"] = ModuleType("__main__")
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
        context = CLIContext(app=find_app(request["app"]), no_color=True, workdir=None, quiet=False)
        worker.main(request["arguments"], prog_name="celery worker", obj=context, standalone_mode=False)
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


if __name__ == "__main__":
    sys.exit(run_worker(json.loads(sys.argv[1]), int(sys.argv[2])))
