"""A test run leaves nothing behind, however it ends and however it was started."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from settings import ROOT
from tests.waiting import processes_of, wait_for, wait_until_gone

ENDLESS = "tests/integration/killed_run.py"
SECONDS_TO_START = 90.0  # on a busy machine

pytestmark = pytest.mark.timeout(240)  # the run inside has a start of its own


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a folder for all temporary files of a run inside this run. Its name has a space."""
    with tempfile.TemporaryDirectory(prefix="a ") as name:
        yield Path(name)


def start(place: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `./learn test` with all its temporary files in `place`."""
    outer = {name for name in os.environ if name.startswith("PYTEST_")}
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.Popen(
        ["./learn", "test", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env=environment | {"TMPDIR": str(place), "KILLED_RUN": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def up(place: Path, run: subprocess.Popen[str], runs: int = 1) -> list[Path]:
    """Wait until `runs` endless tests run, and return their marks: a process number, and its room inside."""
    wait_for(
        "the endless test runs",
        lambda: len(list(place.glob("*.up"))) == runs or run.poll() is not None,
        SECONDS_TO_START,
    )
    assert run.poll() is None, run.communicate()
    return sorted(place.glob("*.up"), key=lambda path: path.stat().st_mtime)


def nothing_of(room: Path) -> Callable[[], bool]:
    return lambda: not room.exists() and not processes_of(room)


def finish(place: Path, run: subprocess.Popen[str]) -> None:
    """See that the run has ended, and that nothing is left of it."""
    run.communicate(timeout=20)
    wait_for(
        f"nothing is left: {processes_of(place)}",
        lambda: not processes_of(place) and not list(place.glob("[!p]*/")),  # pytest keeps its own folder
        seconds=5,
    )


@pytest.mark.parametrize(
    ("workers", "number"),
    [
        ("0", signal.SIGTERM),
        ("1", signal.SIGKILL),
        *(pytest.param("0", number, marks=pytest.mark.slow) for number in (signal.SIGKILL, signal.SIGHUP)),
        *(pytest.param("1", number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGHUP)),
    ],
)
def test_nothing_is_left_when_the_run_is_killed(place: Path, workers: str, number: signal.Signals) -> None:
    run = start(place, "-n", workers, f"{ENDLESS}::test_that_does_not_end[1]")
    up(place, run)
    assert "pytest" in psutil.Process(run.pid).cmdline()  # the command and pytest are one process
    run.send_signal(number)
    finish(place, run)
    assert run.returncode == -number


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_nothing_is_left_when_one_process_of_the_run_is_killed(place: Path, number: signal.Signals) -> None:
    run = start(place, "-n", "1", ENDLESS)
    (first,) = up(place, run)
    os.kill(int(first.stem), number)
    wait_for("nothing of it is left", nothing_of(Path(first.read_text())), seconds=5)
    assert len(up(place, run, runs=2)) == 2  # another process took its place
    run.kill()
    finish(place, run)


# --- however it was started ---

DISPOSITIONS = """
import signal, subprocess, sys
import tests.room
code = "import signal; print([n.name for n in signal.Signals if signal.getsignal(n) == signal.SIG_IGN])"
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
sys.stdout.flush()
subprocess.run([sys.executable, "-c", code])
"""


def test_programs_start_with_the_default_signals_in_a_run_that_ignores_them() -> None:
    ignore = "trap '' INT QUIT HUP TERM CHLD; exec"
    run = subprocess.run(
        ["sh", "-c", f'{ignore} "$@"', "sh", sys.executable, "-c", DISPOSITIONS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    of_the_run, of_its_programs = run.stdout.splitlines()
    assert of_the_run == "False"  # Ctrl-C is still not for it
    assert of_its_programs == "['SIGPIPE', 'SIGXFSZ']"  # Python's own choice


@pytest.mark.parametrize("command", ["./learn", "./learn example advanced"])
def test_nothing_is_left_of_a_program_that_was_started_with_signals_ignored(
    folder: Path, tmp_path: Path, command: str
) -> None:
    program = subprocess.Popen(
        ["sh", "-c", f"trap '' INT QUIT HUP; exec {command}"],
        cwd=ROOT,
        env=os.environ | {"SANDBOX_DIR": str(folder), "STATE_DIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def has_a_worker() -> bool:
        return any("ready." in log.read_text() for log in tmp_path.glob("logs/sandbox-*.log"))

    wait_for("its worker is ready", has_a_worker, SECONDS_TO_START)
    program.terminate()
    program.wait(timeout=30)
    wait_until_gone(folder)


def test_a_sandbox_ends_when_its_program_is_killed_before_it_could_join(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab.processes", str(folder), str(tmp_path), "broker"]
    ours, its = socket.socketpair()
    with ours, its:
        subprocess.run(command, cwd=ROOT, stdin=its.fileno(), check=True, timeout=60)
        wait_for("it starts", folder.exists)
    wait_for("it has ended", lambda: not processes_of(folder) and not folder.exists(), seconds=20)


COUNTS_RUNS = """
import json, pytest, tests.conftest
tests.conftest.COUNTS.write_text("{}")
for arguments in json.loads(input()):
    print(pytest.main(["--collect-only", "-qq", *arguments]).name, flush=True)
"""
PARTS = [
    *(["--lf"], ["-k", "paths"], ["-m", "slow"], ["--sw"], ["--deselect", "tests/unit/test_mail.py"]),
    *(["--ignore", "tests/unit/test_mail.py"], ["tests/unit/test_paths.py"], ["tests/unit"]),
]
WHOLES = [[], ["--ff"], ["-p", "no:cacheprovider"], ["-x"]]


def test_only_a_whole_run_is_counted(copy: Path) -> None:
    for unneeded in ("browser", "claims", "docs", "integration", "notebooks"):
        shutil.rmtree(copy / "tests" / unneeded)
    run = subprocess.run(
        [copy / ".venv/bin/python", "-c", COUNTS_RUNS],
        cwd=copy,
        input=json.dumps([*PARTS, *WHOLES]),
        capture_output=True,
        text=True,
        timeout=200,
    )
    said = [line for line in run.stdout.splitlines() if line in pytest.ExitCode.__members__]
    refused = [line == "USAGE_ERROR" for line in said]
    assert refused == [False] * len(PARTS) + [True] * len(WHOLES), run.stdout + run.stderr
    assert run.stderr.count("the number of tests has changed") == len(WHOLES)


def test_processes_side_by_side_are_counted_too(copy: Path) -> None:
    for folder in (copy / "tests").iterdir():
        if folder.is_dir() and folder.name not in ("unit", "local_engine"):
            shutil.rmtree(folder)
    for path in (copy / "tests" / "unit").glob("test_[!p]*.py"):
        path.unlink()
    run = subprocess.run(
        [copy / ".venv/bin/pytest", "-n", "1"],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert run.stdout.count("the number of tests has changed") == 1, run.stdout + run.stderr
    assert "INTERNALERROR" not in run.stdout
