"""Imports the app as Celery's own command line does, and tells which code it has loaded."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from doctor.source import Sources, python_files
from doctor.tasks_in_code import TasksInCode

HERE = Path(__file__).resolve().parent
FOREIGN = {"site-packages", "dist-packages", ".venv", "venv", "node_modules"}


class NotReadable(Exception):  # noqa: N818 - it says what the app is
    """The app cannot be imported. The text says why."""


@dataclass(frozen=True, eq=False)
class LoadedApp:
    """An app with all its tasks. `incomplete` says why some of its task modules could not be imported."""

    name: str
    app: Any
    sources: Sources
    incomplete: str = ""

    @property
    def conf(self) -> Any:
        """The settings."""
        return self.app.conf

    @cached_property
    def tasks(self) -> dict[str, Any]:
        """The app's own tasks by name, without those that Celery brings."""
        return {name: task for name, task in self.app.tasks.items() if not name.startswith("celery.")}

    @cached_property
    def in_code(self) -> TasksInCode:
        """The tasks in the code that the app has loaded."""
        return TasksInCode(self.sources)

    def library_mentions(self, *names: str) -> bool:
        """Tell whether a loaded library has one of these words in its code. Celery itself does not count."""
        for path in _library_files():
            with contextlib.suppress(OSError):
                text = path.read_bytes()
                if any(name.encode() in text for name in names):
                    return True
        return False


@contextlib.contextmanager
def _own_words_only() -> Iterator[None]:
    """Keep what an app prints while it is imported out of the report."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def load_app(name: str) -> LoadedApp:
    """Import the app `name`, by the rules of `celery --app`, and its task modules.

    Raises `NotReadable` with the cause if it cannot be imported, or is no Celery app.
    """
    with _own_words_only():
        try:
            import_module("celery")
            from celery import Celery
            from celery.app.utils import find_app
        except ImportError as error:
            raise NotReadable(f"Celery is not installed in this Python ({error})") from None
        try:
            app = find_app(name)
            if not isinstance(app, Celery):
                raise NotReadable(f"{name} is no Celery app, but a {type(app).__name__}")
            _ = app.conf.broker_url  # now the settings are read
        except NotReadable:
            raise
        except (Exception, SystemExit) as error:
            raise NotReadable(cause(error)) from None
        incomplete = _import_tasks(app)
    return LoadedApp(name, app, Sources(loaded_files()), incomplete)


def _import_tasks(app: Any) -> str:
    """Import the task modules, as a worker does at its start. Return why that did not go well."""
    try:
        app.loader.import_default_modules()
        app.finalize(auto=True)
    except (Exception, SystemExit) as error:
        return cause(error)
    return ""


def cause(error: BaseException) -> str:
    """Return an error as one line."""
    words = " ".join(str(error).split())
    if isinstance(error, SystemExit):
        return f"it ends the program with exit code {words or 0}"
    return f"{type(error).__name__}: {words}"[:300].rstrip(": ")


def loaded_files() -> list[Path]:
    """Return the files of the modules that are loaded and belong to the project in the current folder."""
    root = Path.cwd().resolve()
    files = []
    for module in list(sys.modules.values()):
        named = getattr(module, "__file__", None)
        path = Path(named).resolve() if isinstance(named, str) else None
        if path and path.suffix == ".py" and path.is_relative_to(root) and not path.is_relative_to(HERE):
            if FOREIGN.isdisjoint(path.relative_to(root).parts):
                files.append(path)
    return files


def _library_files() -> Iterator[Path]:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and not FOREIGN.isdisjoint(Path(file).parts):
            if name.partition(".")[0] not in ("celery", "kombu"):
                yield Path(file)


def project_texts() -> Iterator[str]:
    """Give the text of each Python file in the current folder."""
    for path in python_files(Path.cwd()):
        if not path.resolve().is_relative_to(HERE):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                yield path.read_text(encoding="utf-8")


def leave_home() -> None:
    """Forget the folder that the doctor lies in, when another project is looked at.

    Its `settings.py` or `tasks` would be imported where the other project has none.
    """
    home = HERE.parent
    if Path.cwd().resolve() != home:
        sys.path[:] = [entry for entry in sys.path if Path(entry or os.getcwd()).resolve() != home]


def is_at_home() -> bool:
    """Tell whether modules of the doctor's own project are loaded while another project is looked at."""
    home = HERE.parent
    if Path.cwd().resolve() == home:
        return False
    files = (getattr(module, "__file__", None) for name, module in list(sys.modules.items()) if "." not in name)
    return any(isinstance(file, str) and Path(file).resolve().parent == home for file in files)
