"""The programs that a learner starts: the tour, the examples, the scripts, the learn command."""

import fcntl
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path

import psutil
import pytest

from lab.cli import newer_code
from lab.sandbox import Sandbox
from settings import ROOT, Settings
from tests.waiting import wait_for

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def environment(folder: Path, **more: str) -> dict[str, str]:
    return os.environ | {"SANDBOX_DIR": str(folder)} | more


def run(folder: Path, *command: str, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(folder, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )


# --- the tour and the examples ---


def test_the_tour_shows_a_task_a_chain_a_group_a_chord_and_a_retry(folder: Path) -> None:
    tour = run(folder, "./learn")
    assert tour.returncode == 0, tour.stderr
    for title in ("A task", "A chain", "A group", "A chord", "A retry", "What to type next"):
        assert title in tour.stdout
    assert "-> 9\n" in tour.stdout
    assert "the service answered at attempt 3" in tour.stdout
    assert "\x1b" not in tour.stdout + tour.stderr  # plain text when piped


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_brings_its_own_worker_and_every_step_does_what_it_says(folder: Path, name: str) -> None:
    program = run(folder, sys.executable, f"examples/{name}")
    assert program.returncode == 0, program.stdout + program.stderr
    assert "This program uses a worker of its own" in program.stdout
    assert program.stderr == ""
    assert "\x1b" not in program.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_help(folder: Path, name: str) -> None:
    program = run(folder, sys.executable, f"examples/{name}", "--help")
    assert program.returncode == 0
    assert "usage:" in program.stdout


def test_an_example_uses_the_worker_that_is_there_and_says_so(folder: Path) -> None:
    try:
        assert run(folder, "./learn", "up").returncode == 0
        assert run(folder, "./learn", "up").stdout.count("worker ") == 1  # twice is once
        program = run(folder, "./learn", "example", "basic")
        assert program.returncode == 0, program.stderr
        assert re.search(r"uses the workers that are there: sandbox-all@", program.stdout)
        assert "worker" in run(folder, "./learn", "status").stdout
    finally:
        assert run(folder, "./learn", "down").stdout == "The sandbox has ended.\n"
    assert run(folder, "./learn", "status").returncode == 1


# Mails and files of the first run are still there for `realworld`.
@pytest.mark.parametrize("name", [pytest.param("advanced", marks=pytest.mark.slow), "realworld"])
def test_an_example_may_run_again_in_a_sandbox_that_stays(folder: Path, name: str) -> None:
    try:
        run(folder, "./learn", "up")
        for _ in range(2):
            program = run(folder, "./learn", "example", name)
            assert (program.returncode, program.stderr) == (0, "")
    finally:
        run(folder, "./learn", "down")


def test_all_works_on_a_broker_of_the_user_and_mail_arrives(sandbox: Sandbox, folder: Path) -> None:
    # To the tour this is a server of somebody else: its own sandbox is in another folder, without a broker.
    url, backend = sandbox.broker.url, sandbox.broker.result_backend
    tour = run(folder, "./learn", CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=backend)
    assert (tour.returncode, tour.stderr) == (0, "")
    assert f"Broker: {url}. This program uses a worker of its own" in tour.stdout
    assert "-> to boss@example.com: Sales 2026-05, with [" in tour.stdout


# --- the scripts ---


def start(folder: Path, log: Path, *command: str, **more: str) -> subprocess.Popen[bytes]:
    """Start a program as in a terminal of its own."""
    with log.open("wb") as out:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(folder, **more),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def test_worker_beat_and_example_meet_on_one_broker_and_ctrl_c_ends_each(
    folder: Path, tmp_path: Path
) -> None:
    worker_log, beat_log = tmp_path / "worker.log", tmp_path / "beat.log"
    worker = start(folder, worker_log, "./start_worker.sh")
    wait_for(
        "the worker is ready",
        lambda: "all@" in worker_log.read_text() and "ready." in worker_log.read_text(),
        40,
    )
    beat = start(folder, beat_log, "./start_beat.sh", PERIODIC_TASK_SECONDS="1")
    wait_for("the periodic task runs", lambda: worker_log.read_text().count("]: periodic task at") >= 2, 40)
    example = run(folder, sys.executable, "examples/basic_usage.py")
    assert "uses the workers that are there: all@" in example.stdout
    assert example.returncode == 0
    for program in (beat, worker):
        os.killpg(program.pid, signal.SIGINT)
    # Celery ends a worker with exit code 1 after Ctrl-C, also when all its tasks could finish.
    assert (beat.wait(timeout=30), worker.wait(timeout=30)) == (0, 1)
    assert "Broker: the sandbox's own" in worker_log.read_text()


def test_of_several_beats_in_one_folder_one_runs_and_after_its_crash_the_next(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    def beat(number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "celery_app", "beat", "--loglevel", "info"]
        return start(sandbox.folder, tmp_path / str(number), *command, STATE_DIR=str(tmp_path / "state"))

    def text(number: int) -> str:
        return (tmp_path / str(number)).read_text()

    beats = {number: beat(number) for number in range(3)}  # at the same moment
    try:
        wait_for("two have ended", lambda: sum(one.poll() is not None for one in beats.values()) == 2, 40)
        [(running, survivor)] = [(number, one) for number, one in beats.items() if one.poll() is None]
        for number in set(beats) - {running}:
            assert beats[number].returncode == 1
            assert re.findall(
                r"A beat runs already, process .*: it has .*celerybeat-schedule\.", text(number)
            )
            assert "Traceback" not in text(number)
        wait_for("it runs", lambda: "beat: Starting" in text(running), 40)
        survivor.kill()
        survivor.wait()
        beats[3] = beat(3)
        wait_for("the next one runs", lambda: "beat: Starting" in text(3), 40)
    finally:
        for one in beats.values():
            one.kill()
            one.wait()


def test_a_worker_script_serves_the_queues_it_is_told_and_passes_options_on(
    folder: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    worker = start(folder, log, *["./start_worker.sh", "realworld", "health", "--concurrency", "3"])
    wait_for("the worker is ready", lambda: "ready." in log.read_text(), 40)
    os.killpg(worker.pid, signal.SIGINT)
    worker.wait(timeout=30)
    text = log.read_text()
    assert re.findall(r"\.> (\w+) +exchange=", text) == ["health", "realworld"]
    assert "concurrency: 3" in text
    assert "realworld-health@" in text


def test_flower_listens_on_loopback_only_and_asks_for_a_password(folder: Path, tmp_path: Path) -> None:
    log, socket = tmp_path / "log", str(tmp_path / "flower.sock")
    flower = start(folder, log, "./start_flower.sh", "--port=0", "--unix_socket=" + socket)
    try:
        wait_for("Flower is up", lambda: "Visit me" in log.read_text() or Path(socket).exists(), 40)
        listening = [
            connection.laddr
            for connection in psutil.Process(flower.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert all(address.ip == "127.0.0.1" for address in listening)
        answer = subprocess.run(
            [
                "curl",
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--unix-socket",
                socket,
                "http://flower/",
            ],
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert answer.stdout == "401"
        wait_for("what to log in with", lambda: "with the password of this run" in log.read_text())
    finally:
        os.killpg(flower.pid, signal.SIGINT)
        flower.wait(timeout=30)


def test_a_second_flower_on_a_port_names_the_port_in_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        flower = run(folder, "./start_flower.sh", f"--port={port}")
    assert flower.returncode == 1
    broker, line = flower.stderr.splitlines()
    assert broker.startswith("Broker: ")
    assert line.startswith(f"Flower cannot listen on port {port} of 127.0.0.1: Address already in use.")
    assert line.endswith("--port=5556")
    assert flower.stdout == ""


def test_flower_beyond_loopback_needs_a_password_of_ones_own(folder: Path) -> None:
    flower = run(folder, "./start_flower.sh", "--address=0.0.0.0", "--port=0")
    assert flower.returncode == 1
    assert "open to others: set FLOWER_PASSWORD first" in flower.stderr


def test_learn_run_keeps_the_broker_up_while_a_command_runs(folder: Path) -> None:
    command = "./learn run celery -A celery_app call tasks.basic_tasks.add --args=[1,2]"
    program = run(folder, *command.split())
    assert program.returncode == 0, program.stderr
    assert re.fullmatch(r"[0-9a-f-]{36}\n", program.stdout)


def test_an_unknown_command_is_refused(folder: Path) -> None:
    assert "no such command" in run(folder, "./learn", "run", "celry").stderr
    assert run(folder, "./learn", "fly").returncode == 2


# --- the learn script on other machines ---


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the project in a path with spaces, with the environment that is installed here."""
    place = tmp_path / "a new folder" / "learn celery"
    place.mkdir(parents=True)
    for name in (
        "learn",
        "uv.lock",
        "pyproject.toml",
        "celery_app.py",
        "settings.py",
        "transport.py",
        "broker.py",
        "monitor.py",
    ):
        shutil.copy(ROOT / name, place / name)
    for name in ("lab", "tasks", "services", "data", "examples"):
        (place / name).symlink_to(ROOT / name)
    (place / ".venv").symlink_to(ROOT / ".venv")
    return place


def fake(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_learn_works_from_another_folder_through_a_link_and_without_a_network(
    folder: Path, copy: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(copy / "learn")
    program = run(
        folder,
        str(tmp_path / "link"),
        "--help",
        cwd=Path("/"),
        http_proxy="http://127.0.0.1:1",
        UV_OFFLINE="1",
    )
    assert program.returncode == 0, program.stderr
    assert "guided tour" in program.stdout


@pytest.mark.parametrize(
    ("python", "message"),
    [
        (
            "case $1 in --version) echo Python 3.8.1;; *) exit 1;; esac",
            "no Python 3.11 or newer found (python3 is Python 3.8.1)",
        ),
        ("case $2 in *ensurepip*) exit 1;; esac", "has no venv module"),
    ],
)
def test_an_unfit_python_gets_one_clear_line(
    folder: Path, copy: Path, tmp_path: Path, python: str, message: str
) -> None:
    (copy / ".venv").unlink()
    tools = tmp_path / "bin"
    fake(tools, "python3", python)
    for name in ("sh", "dirname", "readlink", "tail", "cmp", "cp"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    program = run(folder, str(copy / "learn"), PATH=str(tools), HOME=str(tmp_path))
    assert program.returncode == 1
    assert message in program.stderr
    assert len(program.stderr.splitlines()) == 1


# --- ./learn up ---


def worker_of(status: str) -> str:
    """Return the process id of the worker, or what else `./learn status` says of it."""
    [line] = re.findall(r"^worker +(?:sandbox-all +pid )?(.+?)(?: +log .*)?$", status, re.MULTILINE)
    return str(line)


def test_a_worker_that_was_killed_is_told_and_up_starts_another_one_and_restart_replaces_it(
    folder: Path,
) -> None:
    try:
        first = worker_of(run(folder, "./learn", "up").stdout)
        os.kill(int(first), signal.SIGKILL)
        wait_for(
            "status tells", lambda: worker_of(run(folder, "./learn", "status").stdout) == "not running", 30
        )
        second = worker_of(run(folder, "./learn", "up").stdout)
        assert int(second) != int(first)
        assert worker_of(run(folder, "./learn", "up").stdout) == second
        assert int(worker_of(run(folder, "./learn", "up", "--restart").stdout)) not in (
            int(first),
            int(second),
        )
    finally:
        run(folder, "./learn", "down")


def test_up_says_when_the_code_is_newer_than_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tasks").mkdir()
    for moment, name in enumerate(["settings.py", "tasks/basic_tasks.py"], 1):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (moment, moment))
    monkeypatch.setattr("lab.cli.ROOT", tmp_path)
    assert [newer_code(moment) for moment in (0.5, 1.5, 2.5)] == ["tasks/basic_tasks.py"] * 2 + [None]


def test_a_checkout_that_moves_finds_its_sandbox_and_a_copy_of_it_does_not(
    copy: Path, tmp_path: Path
) -> None:
    def found(checkout: Path) -> str:
        code = "from settings import settings; print(settings.sandbox_folder)"
        own = os.environ | {"SANDBOX_DIR": "", "PYTHONPATH": str(checkout)}
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, cwd=checkout, env=own, capture_output=True, text=True, check=True
        ).stdout

    before = found(copy)
    moved = copy.rename(copy.with_name("moved"))
    assert found(moved) == before
    shutil.copytree(moved, copy, symlinks=True)
    assert found(copy) != before


def test_a_full_temporary_folder_does_not_hide_the_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/elsewhere")  # as it answers then
    assert Settings(sandbox_dir=None).sandbox_folder.parent == tmp_path


# --- in a terminal ---


def in_a_terminal(folder: Path, *command: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command in a terminal of 80 by 24. Return it with the other end of the terminal."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    program = subprocess.Popen(
        command, cwd=ROOT, env=environment(folder, TERM="xterm"), stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    return program, ours


def read_until(terminal: int, text: str) -> str:
    """Read what a program shows until `text` comes."""
    shown = ""
    while text not in shown:
        assert select.select([terminal], [], [], 60)[0], f"no {text!r} in {shown!r}"
        shown += os.read(terminal, 65536).decode()
    return shown


def test_in_a_terminal_the_tour_waits_for_enter_after_each_step(folder: Path) -> None:
    program, terminal = in_a_terminal(folder, "./learn")
    try:
        shown = read_until(terminal, "Enter: next step")
        assert "1. A task" in shown
        assert "2." not in shown
        os.write(terminal, b"\n")
        assert "2. It ran in another process" in read_until(terminal, "Enter: next step")
        program.send_signal(signal.SIGINT)
        read_until(terminal, "interrupted")
        assert program.wait(timeout=30) in (130, -signal.SIGINT)
    finally:
        program.kill()
        os.close(terminal)


def test_without_pauses_an_example_goes_on_in_a_terminal(folder: Path) -> None:
    program, terminal = in_a_terminal(folder, "./learn", "example", "basic", "--no-pause")
    try:
        assert "Enter" not in read_until(terminal, "2. ")
        program.terminate()
        program.wait(timeout=30)
    finally:
        program.kill()
        os.close(terminal)


def test_in_a_terminal_of_80_columns_the_monitor_and_the_xray_cut_nothing_that_is_needed(
    folder: Path,
) -> None:
    try:
        run(folder, "./learn", "up")
        send = "from tasks.basic_tasks import add; print(add.apply_async((10**9, 2*10**9), countdown=600).id)"
        task_id = run(folder, "./learn", "run", "python", "-c", send).stdout.strip()
        monitor = run(folder, "./learn", "monitor", COLUMNS="80").stdout
        xray = run(folder, "./learn", "xray", "basic", COLUMNS="80").stdout
    finally:
        run(folder, "./learn", "down")
    words = re.sub(r"\W+", " ", monitor)
    for needed in ("advanced", "realworld", "health", "prefork", "scheduled"):
        assert needed in words.partition("Workers")[2]
    for needed in (f" {task_id[:8]}… ", "1000000000, 2000000000", "Unacknowledged, in all queues: 1"):
        assert needed in xray
    assert max(map(len, (monitor + xray).splitlines())) <= 80


def test_the_monitor_says_that_no_worker_runs(sandbox: Sandbox) -> None:
    assert "No worker runs, or none answers." in run(sandbox.folder, "./learn", "monitor").stdout


# --- names and links ---


@pytest.mark.parametrize("script", ["start_worker.sh", "start_beat.sh", "start_flower.sh"])
def test_a_script_works_through_a_link(folder: Path, tmp_path: Path, script: str) -> None:
    (tmp_path / script).symlink_to(ROOT / script)
    program = run(folder, str(tmp_path / script), "--help", cwd=tmp_path)
    assert (program.returncode, "not found" in program.stderr) == (0, False)


def test_a_worker_for_a_queue_that_is_not_there_lists_those_that_are(folder: Path) -> None:
    program = run(folder, "./start_worker.sh", "nosuchqueue")
    assert program.returncode == 1
    expected = "queue='nosuchqueue': no such queue; use one of basic, advanced, realworld, ai, health"
    assert program.stderr.splitlines()[-1] == expected
