"""The learner's file as the module `exercise`. Workers of a check include this module, which loads it."""

import os
import resource
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from lab.processes.worker import START_SECONDS

MODULE = "exercise"
MOST_MEMORY = 2 * 1024**3  # bytes of address space; a worker alone takes about 0.6 GB
MOST_FILE = 64 * 1024**2  # bytes in one file, its log too
MOST_PRINTED = 20_000  # bytes, of each process


def load(source: Path, shown_as: str, printed: Path) -> ModuleType:
    """Run the file `source` as the module `exercise`. Errors in it are said to be in `shown_as`.

    What it prints is added to the file `printed`.
    """
    for kind, most in ((resource.RLIMIT_AS, MOST_MEMORY), (resource.RLIMIT_FSIZE, MOST_FILE)):
        resource.setrlimit(kind, (most, most))
    module = ModuleType(MODULE)
    module.__file__ = shown_as
    sys.modules[MODULE] = module

    left = MOST_PRINTED

    def tell(*values: Any, sep: str | None = " ", end: str | None = "\n", **options: Any) -> None:
        if options.get("file") is not None:
            print(*values, sep=sep, end=end, **options)
            return
        text = (" " if sep is None else sep).join(map(str, values)) + ("\n" if end is None else end)
        nonlocal left
        written = text.encode(errors="backslashreplace")[:left]
        left -= len(written)
        if written:
            with printed.open("ab") as file:
                file.write(written)

    module.__dict__["print"] = tell
    exec(compile(source.read_bytes(), shown_as, "exec"), module.__dict__)  # noqa: S102 - the learner's own
    return module


def _load_when_told() -> None:
    """Load the learner's file. A worker that was started ahead of its check waits here until it begins."""
    if fifo := os.environ.get("EXERCISE_BEGIN"):
        signal.alarm(0)  # the wait does not count as a slow start
        shown_as = Path(fifo).read_text()
        signal.alarm(START_SECONDS)
    else:
        shown_as = os.environ["EXERCISE_FILE"]
    load(Path(os.environ["EXERCISE_SOURCE"]), shown_as, Path(os.environ["EXERCISE_PRINTED"]))


if "EXERCISE_SOURCE" in os.environ:
    _load_when_told()
