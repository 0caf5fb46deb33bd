"""What the sandbox promises: private, shared, quick, and nothing left behind."""

import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lab.sandbox import Sandbox, SandboxError, connect
from settings import ROOT, settings
from tasks.basic_tasks import add
from tests.waiting import processes_of, wait_for, wait_until_gone

# Programs that use a sandbox in various ways. They say "up" when it runs.
USES_IT = """
import time
from lab.sandbox import Sandbox
from tests.helper_tasks import mark_and_wait
with Sandbox() as sandbox:
    sandbox.start_worker(["basic"], include=["tests.helper_tasks"])
    print("up", flush=True)
    {rest}
"""
FOR_EVER = "time.sleep(600)"


def start_program(folder: Path, rest: str) -> subprocess.Popen[str]:
    """Start a program that uses the sandbox in `folder`, and wait until the sandbox is up."""
    program = subprocess.Popen(
        [sys.executable, "-c", USES_IT.format(rest=rest)],
        env=os.environ | {"SANDBOX_DIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout
    assert program.stdout.readline() == "up\n", program.communicate()
    return program


# --- private ---


def test_nothing_listens_on_tcp(sandbox: Sandbox) -> None:
    sandbox.start_worker(["basic"])
    processes = processes_of(sandbox.folder)
    assert len(processes) >= 4  # supervisor, watchdog, broker, worker
    listening = [
        connection
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN and process.pid != os.getpid()
    ]
    assert listening == []


def test_only_the_owner_can_enter_the_folder_and_the_socket(sandbox: Sandbox) -> None:
    assert stat.S_IMODE(sandbox.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((sandbox.folder / "broker.sock").stat().st_mode) == 0o700


def test_two_sandboxes_do_not_see_each_other(sandbox: Sandbox, folder: Path) -> None:
    with Sandbox(folder=folder) as other:
        other.broker.client().set("mine", 1)
        assert sandbox.broker.client().get("mine") is None
        assert other.broker.pid != sandbox.broker.pid


# --- shared ---


def test_another_program_finds_the_sandbox_and_its_worker_without_a_setting(sandbox: Sandbox) -> None:
    sandbox.start_worker(["basic"])
    code = "from tasks.basic_tasks import add; r = add.delay(4, 5); print(r.get(timeout=10))"
    program = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (program.stdout, program.stderr) == ("9\n", "")


def test_the_sandbox_stays_until_its_last_user_leaves(folder: Path) -> None:
    first = Sandbox(folder=folder)
    first.open()
    with Sandbox(folder=folder) as second:
        broker = first.connection.status().broker
        first.close()
        assert second.connection.status().broker == broker is not None
        assert second.broker.client().ping()
    assert connect(folder) is None


def test_programs_that_start_at_the_same_moment_share_one_sandbox(folder: Path) -> None:
    code = "from lab.sandbox import Sandbox\nwith Sandbox() as s:\n print(s.broker.pid, flush=True)\n input()"
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"SANDBOX_DIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    pids = {program.stdout.readline() for program in programs if program.stdout}
    for program in programs:
        program.communicate("\n", timeout=20)
    assert len(pids) == 1
    assert [program.returncode for program in programs] == [0] * 4


def test_a_pinned_sandbox_stays_until_it_is_stopped(folder: Path) -> None:
    with Sandbox(folder=folder) as sandbox:
        sandbox.connection.pin()
    connection = connect(folder)
    assert connection is not None
    connection.stop()
    assert connect(folder) is None


# --- workers ---


def test_workers_are_forked_from_the_keeper(sandbox: Sandbox) -> None:
    worker = sandbox.start_worker(["basic"])
    supervisor = sandbox.connection.status().supervisor
    assert psutil.Process(worker.pid).ppid() == supervisor


def test_two_workers_for_the_same_queue_get_different_names(sandbox: Sandbox) -> None:
    first, second = sandbox.start_worker(["basic"]), sandbox.start_worker(["basic"])
    assert first.name != second.name


def test_a_worker_writes_a_log_that_can_be_found(sandbox: Sandbox) -> None:
    worker = sandbox.start_worker(["basic"])
    assert worker.log.parent == settings.state_dir / "logs"
    wait_for("the log says ready", lambda: "ready." in worker.log.read_text())


def test_killing_a_worker_kills_its_pool_children(sandbox: Sandbox) -> None:
    worker = sandbox.start_worker(["basic"])
    children = psutil.Process(worker.pid).children(recursive=True)
    assert len(children) == 2
    worker.kill()
    wait_for("the pool children are gone", lambda: not any(child.is_running() for child in children))


def test_a_frozen_worker_goes_on_when_it_is_thawed(sandbox: Sandbox) -> None:
    worker = sandbox.start_worker(["basic"])
    worker.freeze()
    result = add.delay(1, 2)
    wait_for("it is stopped", lambda: psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED)
    worker.thaw()
    assert result.get(timeout=10) == 3


def test_after_a_restart_of_the_broker_workers_come_back(folder: Path) -> None:
    # A worker that has an acknowledgement under way when the broker goes may end instead of reconnecting
    # (Celery 5.7.0: "Unrecoverable error: AttributeError"), so the restart waits until nothing is under way.
    code = """
from lab.waiting import wait_for
from lab.sandbox import Sandbox
from tasks.basic_tasks import add
with Sandbox(["basic"]) as sandbox:
    print(add.delay(1, 1).get(timeout=10))
    wait_for("acknowledged", lambda: sandbox.broker.client().hlen("unacked") == 0)
    sandbox.broker.restart()
    print(add.delay(2, 2).get(timeout=20))
"""
    environment = os.environ | {"SANDBOX_DIR": str(folder)}
    program = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (program.stdout, program.stderr) == ("2\n4\n", "")


# --- nothing left behind ---


def test_nothing_is_left_after_success(folder: Path) -> None:
    program = start_program(folder, "pass")
    assert program.wait(timeout=20) == 0
    assert not processes_of(folder)  # at once: leaving waits for the end
    assert not folder.exists()


def test_nothing_is_left_after_an_error(folder: Path) -> None:
    program = start_program(folder, "raise ValueError")
    assert program.wait(timeout=20) == 1
    wait_until_gone(folder)


def test_no_temporary_file_is_left_when_a_worker_is_killed(folder: Path, tmp_path: Path) -> None:
    code = """
from lab.sandbox import Sandbox
from tasks.basic_tasks import add
with Sandbox(["basic"]) as sandbox:
    add.delay(1, 1).get(timeout=10)
    sandbox.worker.kill()
    sandbox.start_worker(["basic"]).stop()
"""
    environment = os.environ | {"SANDBOX_DIR": str(folder), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_after_a_signal_to_the_program(folder: Path, number: signal.Signals) -> None:
    program = start_program(folder, FOR_EVER)
    os.killpg(program.pid, number)
    assert program.wait(timeout=20) != 0
    wait_until_gone(folder)


def test_nothing_is_left_after_kill_9_while_a_task_runs(folder: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    program = start_program(folder, f"mark_and_wait.delay({str(marks)!r}, '/nowhere'); {FOR_EVER}")
    wait_for("the task runs", marks.exists)
    program.kill()
    program.wait(timeout=10)
    wait_until_gone(folder)


@pytest.mark.parametrize("victim", ["supervisor", "watchdog"])
def test_nothing_is_left_after_kill_9_of_the_sandbox_itself(folder: Path, victim: str) -> None:
    program = start_program(folder, FOR_EVER)
    connection = connect(folder)
    assert connection is not None
    supervisor = psutil.Process(connection.status().supervisor)
    watchdog = next(child for child in supervisor.children() if "lab.processes.supervisor" in child.cmdline())
    (supervisor if victim == "supervisor" else watchdog).kill()
    wait_for("the sandbox has ended", lambda: not [p for p in processes_of(folder) if p.pid != program.pid])
    wait_for("the folder is gone", lambda: not folder.exists())
    program.kill()
    program.wait(timeout=10)


# --- when it cannot start ---


def test_a_worker_that_does_not_start_says_why(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match=r"(?s)did not start.*last lines of.*nowhere"):
        sandbox.start_worker(["nowhere"])


def test_what_a_crash_left_is_taken_over(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for name in ("broker.sock", "control.sock", "supervisor.lock", "supervisor.pid"):
        (folder / name).write_text("999999")
    with Sandbox(folder=folder) as sandbox:
        assert sandbox.broker.client().ping()


def test_a_folder_that_others_may_enter_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(SandboxError, match=r"others may enter it.*SANDBOX_DIR"):
        Sandbox(folder=folder).open()
    folder.rmdir()


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(SandboxError, match=r"SANDBOX_DIR='/tmp/x+' is too long.*shorter"):
        Sandbox(folder=Path("/tmp") / ("x" * 120)).open()


def test_a_folder_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(SandboxError, match="could not start in /proc/nowhere"):
        Sandbox(folder=Path("/proc/nowhere")).open()


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    # A file system of one block, in a mount name space of its own: no rights are needed, nothing remains.
    if subprocess.run(["sh", "-c", "unshare -rm true"], capture_output=True).returncode:
        pytest.skip("no mount name space can be made here: `unshare -rm` fails")
    code = (
        "from pathlib import Path\nfrom lab.sandbox import Sandbox, SandboxError\n"
        "try:\n Sandbox(folder=Path('/mnt/s')).open()\nexcept SandboxError as error:\n print(error)"
    )
    mount = "mount -t tmpfs -o size=4k,nr_inodes=3 none /mnt"
    script = f"{mount} && exec {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    program = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert "No space left on device" in program.stdout, program.stderr
    assert not Path("/mnt/s").exists()


def test_a_folder_with_somebodys_files_is_refused_and_stays(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "precious").touch()
    with pytest.raises(SandboxError, match=r"has files that are not a sandbox's.*SANDBOX_DIR"):
        Sandbox(folder=folder).open()
    assert (folder / "precious").exists()
    shutil.rmtree(folder)
