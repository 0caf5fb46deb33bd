"""How long a learner waits: for the first result of an example, and for an error when the broker is away.

python benchmarks/start_up.py --runs 5
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lab.sandbox import Sandbox
from settings import ROOT

SEND = "from tasks.basic_tasks import add; add.delay(1, 2)"


def first_result(environment: dict[str, str]) -> float:
    """Return the seconds from the command to the first result of examples/basic_usage.py."""
    started = time.perf_counter()
    command = [sys.executable, "examples/basic_usage.py"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        next(line for line in program.stdout if line.strip() == "-> 9")
        seconds = time.perf_counter() - started
        program.stdout.read()
    return seconds


def failing(command: list[str], environment: dict[str, str]) -> float:
    """Return the seconds until `command` has failed."""
    started = time.perf_counter()
    program = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=120
    )
    assert program.returncode != 0, command
    return time.perf_counter() - started


def report(what: str, seconds: list[float]) -> None:
    """Print the median and the range."""
    print(f"{what:42} {statistics.median(seconds):6.2f} s   {min(seconds):.2f} to {max(seconds):.2f}")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured (default 5)")
    runs = range(parser.parse_args().runs)
    with tempfile.TemporaryDirectory(prefix="learn-") as room:
        folder = Path(room) / "s"
        environment = os.environ | {"SANDBOX_DIR": str(folder), "STATE_DIR": f"{room}/state"}
        report("first result of examples/basic_usage.py", [first_result(environment) for _ in runs])
        with Sandbox(folder=folder) as sandbox:
            workers = []
            for _ in runs:
                started = time.perf_counter()
                sandbox.start_worker(["basic"]).kill()
                workers.append(time.perf_counter() - started)
            report("a forked worker ready, and killed", workers)
            programs = {
                "delay() in a program": [sys.executable, "-c", SEND],
                "celery worker": [sys.executable, "-m", "celery", "-A", "celery_app", "worker"],
                "celery inspect": [sys.executable, "-m", "celery", "-A", "celery_app", "inspect", "active"],
                "examples/basic_usage.py": [sys.executable, "examples/basic_usage.py"],
            }
            sandbox.broker.freeze()
            for name, command in programs.items():
                report(f"broker frozen: {name}", [failing(command, environment) for _ in runs])
            sandbox.broker.thaw()
            sandbox.broker.stop()
            for name, command in list(programs.items())[:3]:
                report(f"broker stopped: {name}", [failing(command, environment) for _ in runs])


if __name__ == "__main__":
    main()
