"""How long a learner waits: for the first result of an example, and for an error when the broker is away.

python benchmarks/start_up.py --runs 5 [--beside ANOTHER_CHECKOUT]
"""

import argparse
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from operator import methodcaller
from pathlib import Path

from settings import ROOT

START_WORKER = """
import time
from lab.sandbox import Sandbox
with Sandbox() as sandbox:
    started = time.perf_counter()
    sandbox.start_worker(["basic"]).kill()
    print(time.perf_counter() - started)
"""
CELERY = ("-m", "celery", "-A", "celery_app")
# What must end soon when the broker is away, as arguments of Python.
FAILING = {
    "delay() in a program": ("-c", "from tasks.basic_tasks import add; add.delay(1, 2)"),
    "celery worker": (*CELERY, "worker"),
    "celery inspect": (*CELERY, "inspect", "active"),
    "examples/basic_usage.py": ("examples/basic_usage.py",),
}


class Checkout:
    """A copy of this project, with a sandbox of its own in `room`."""

    def __init__(self, folder: Path, room: Path) -> None:
        self.folder = folder
        self.python = str(folder / ".venv" / "bin" / "python")
        self.environment = os.environ | {"SANDBOX_DIR": f"{room}/s", "STATE_DIR": f"{room}/state"}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a learner's Python keeps what it compiles

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in its folder."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def first_result(self, *command: str) -> float:
        """Return the seconds from the command to the first result of examples/basic_usage.py."""
        started = time.perf_counter()
        with self.start(*command) as program:
            assert program.stdout
            next(line for line in program.stdout if line.strip() == "-> 9")
            seconds = time.perf_counter() - started
            program.stdout.read()
        return seconds

    def forked_worker(self) -> float:
        """Return the seconds until a worker is ready, and killed again, in a sandbox that runs."""
        text, _ = self.start(self.python, "-c", START_WORKER).communicate(timeout=60)
        return float(text)

    def failing(self, *arguments: str) -> float:
        """Return the seconds until Python has failed with these arguments."""
        started = time.perf_counter()
        program = self.start(self.python, *arguments)
        program.communicate(timeout=120)
        assert program.returncode != 0, arguments
        return time.perf_counter() - started

    def start_broker(self) -> None:
        """Start its broker, and note the process id."""
        text, _ = self.start("./learn", "up", "--broker-only").communicate(timeout=60)
        [self.broker] = [int(words[3]) for words in map(str.split, text.splitlines()) if words[0] == "broker"]

    def signal_broker(self, number: signal.Signals) -> None:
        """Send a signal to its broker."""
        os.kill(self.broker, number)

    def end(self) -> None:
        """End its sandbox."""
        self.start("./learn", "down").communicate(timeout=60)


def measure(what: str, checkouts: list[Checkout], runs: int, look: Callable[[Checkout], float]) -> None:
    """Print the median and the range for each checkout. They take turns, so that noise meets all of them."""
    seconds: list[list[float]] = [[] for _ in checkouts]
    for _ in range(runs):
        for found, checkout in zip(seconds, checkouts, strict=True):
            found.append(look(checkout))
    for found, checkout in zip(seconds, checkouts, strict=True):
        where = f"   {checkout.folder}" if len(checkouts) > 1 else ""
        middle, first, last = statistics.median(found), min(found), max(found)
        print(f"{what:42} {middle:6.2f} s   {first:.2f} to {last:.2f}{where}", flush=True)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured (default 5)")
    parser.add_argument("--beside", type=Path, help="another checkout, with packages, to compare with")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="learn-") as room:
        folders = [ROOT, arguments.beside.resolve()] if arguments.beside else [ROOT]
        rooms = [Path(tempfile.mkdtemp(dir=room)) for _ in folders]
        compare(list(map(Checkout, folders, rooms)), arguments.runs)


def compare(checkouts: list[Checkout], runs: int) -> None:
    """Measure all, in all checkouts."""
    example = "examples/basic_usage.py"
    by_learn = methodcaller("first_result", "./learn", "example", "basic")
    measure("first result of ./learn example basic", checkouts, runs, by_learn)
    measure(f"first result of {example}", checkouts, runs, lambda it: it.first_result(it.python, example))
    for checkout in checkouts:
        checkout.start_broker()
    try:
        measure("a forked worker ready, and killed", checkouts, runs, Checkout.forked_worker)
        for state, number in {"frozen": signal.SIGSTOP, "stopped": signal.SIGKILL}.items():
            for checkout in checkouts:
                checkout.signal_broker(number)
            for name, command in FAILING.items():
                if (state, name) != ("stopped", example):  # it starts the broker again
                    measure(f"broker {state}: {name}", checkouts, runs, methodcaller("failing", *command))
    finally:
        for checkout in checkouts:
            checkout.end()


if __name__ == "__main__":
    main()
