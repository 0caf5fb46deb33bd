"""What the sandbox promises: private, shared, quick, and nothing left behind."""

import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

import psutil
import pytest

from lab.sandbox import Sandbox, SandboxError, connect
from settings import ROOT, settings
from tasks.basic_tasks import add
from tests.waiting import processes_of, wait_for, wait_until_gone

MODULE = "lab.processes"  # in the command line of the supervisor and of what it forks

# A program that uses a sandbox. It says "up" when all of it runs.
USES_IT = """
import time
from lab.sandbox import Sandbox
from tests.helper_tasks import mark_and_wait
with Sandbox() as sandbox:
    sandbox.start_worker(["basic"], include=["tests.helper_tasks", "tests.slow_start"])
    print("up", flush=True)
    {rest}
"""
FOR_EVER = "time.sleep(600)"
ON_LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="only the Linux kernel ends processes with their parent"
)
UNTIL_IT_ENDS = "sandbox.connection.link.recv(1)"


def begin_program(
    folder: Path, rest: str = FOR_EVER, ignore: str = "", **environment: str
) -> subprocess.Popen[str]:
    """Start a program that uses the sandbox in `folder`, and do not wait. It may `ignore` some signals."""
    program = ["sh", "-c", f"trap '' {ignore}; exec \"$@\"", "sh"] if ignore else []
    return subprocess.Popen(
        [*program, sys.executable, "-c", USES_IT.format(rest=rest)],
        env=os.environ | {"SANDBOX_DIR": str(folder)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def start_program(folder: Path, rest: str, ignore: str = "") -> subprocess.Popen[str]:
    """Start a program that uses the sandbox in `folder`, and wait until the sandbox is up."""
    program = begin_program(folder, rest, ignore)
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


def test_the_supervisor_starts_on_the_standard_library_alone() -> None:
    code = "import sys, lab.processes.supervisor; print(*{name.partition('.')[0] for name in sys.modules})"
    before = subprocess.run([sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True)
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    own = set(loaded.stdout.split()) - set(before.stdout.split())
    assert {name.decode() for name in own} - sys.stdlib_module_names == {"lab"}


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


def test_workers_are_forked_from_the_supervisor(sandbox: Sandbox) -> None:
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


@pytest.mark.parametrize(
    "victims",
    [["supervisor"], ["watchdog"], pytest.param(["supervisor", "watchdog"], marks=ON_LINUX)],
    ids="+".join,
)
def test_nothing_is_left_after_kill_9_of_the_sandbox_itself(folder: Path, victims: list[str]) -> None:
    program = start_program(folder, UNTIL_IT_ENDS)
    for process in sandbox_processes(folder, victims):
        process.kill()
    assert program.wait(timeout=20) == 0
    wait_until_gone(folder)


def sandbox_processes(folder: Path, names: list[str]) -> list[psutil.Process]:
    """Return the supervisor and the watchdog of a sandbox, by their names."""
    connection = connect(folder)
    assert connection is not None
    supervisor = psutil.Process(connection.status().supervisor)
    connection.close()
    watchdog = next(child for child in supervisor.children() if os.getsid(child.pid) == child.pid)
    return [{"supervisor": supervisor, "watchdog": watchdog}[name] for name in names]


@ON_LINUX
def test_what_is_left_when_all_were_killed_goes_with_the_next_command(folder: Path) -> None:
    program = start_program(folder, FOR_EVER)
    for process in [*sandbox_processes(folder, ["supervisor", "watchdog"]), program]:
        process.kill()
    program.wait(timeout=10)
    wait_for("all processes have ended", lambda: not processes_of(folder))
    assert folder.exists()  # nobody was left to remove it
    environment = os.environ | {"SANDBOX_DIR": str(folder)}
    down = subprocess.run([ROOT / "learn", "down"], env=environment, capture_output=True, timeout=30)
    assert down.returncode == 0
    assert not folder.exists()


# What a sandbox has done one after the other while it starts, and who is killed then.
BEGUN = {
    "the supervisor is forked": lambda folder: supervisors(folder),
    "the folder is taken": lambda folder: (folder / "supervisor.lock").exists(),
    "the broker listens": lambda folder: (folder / "broker.sock").exists(),
    "the supervisor listens": lambda folder: (folder / "control.sock").exists(),
}


def supervisors(folder: Path) -> list[psutil.Process]:
    """Return the supervisor of a sandbox, and what it has forked, which has the same command line."""
    found = []
    for process in processes_of(folder):
        with suppress(psutil.NoSuchProcess):
            if MODULE in process.cmdline():
                found.append(process)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("moment", BEGUN)
def test_nothing_is_left_of_a_sandbox_whose_program_ends_while_it_starts(
    folder: Path, moment: str, number: signal.Signals
) -> None:
    program = begin_program(folder)
    wait_for(moment, lambda: BEGUN[moment](folder), seconds=30)
    program.send_signal(number)
    program.wait(timeout=20)
    wait_until_gone(folder)


@ON_LINUX
@pytest.mark.parametrize("moment", BEGUN)
def test_nothing_is_left_of_a_sandbox_whose_supervisor_and_watchdog_are_killed_while_it_starts(
    folder: Path, moment: str
) -> None:
    program = begin_program(folder, UNTIL_IT_ENDS)
    wait_for(moment, lambda: BEGUN[moment](folder), seconds=30)

    def kill() -> bool:  # more than once: one of them may fork meanwhile
        for process in supervisors(folder):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return program.poll() is not None

    wait_for("the program has ended", kill, seconds=60)
    program.communicate(timeout=10)
    wait_until_gone(folder)


@pytest.mark.parametrize("victims", ["program", "supervisor", "both"])
def test_nothing_is_left_after_kill_9_while_a_worker_starts(
    folder: Path, tmp_path: Path, victims: str
) -> None:
    mark = tmp_path / "mark"
    program = begin_program(folder, START_MARK=str(mark))
    wait_for("the worker starts", mark.exists, seconds=30)
    killed = [] if victims == "supervisor" else [program]
    killed += [] if victims == "program" else sandbox_processes(folder, ["supervisor"])
    for process in killed:
        process.kill()
    program.communicate(timeout=20)
    wait_until_gone(folder)


def test_a_worker_that_starts_when_its_program_ends_leaves_the_others_alone(
    folder: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    with Sandbox(folder=folder) as sandbox:
        program = begin_program(folder, START_MARK=str(mark))
        wait_for("the worker starts", mark.exists, seconds=30)
        program.kill()
        program.communicate(timeout=20)
        wait_for("its worker has ended", lambda: not sandbox.connection.status().workers)
        assert sandbox.broker.client().ping()


# --- signals that are ignored, as in the background job of a script ---


def test_a_sandbox_that_is_started_in_the_background_obeys_signals(folder: Path) -> None:
    program = start_program(
        folder, "sandbox.connection.end(sandbox.worker.pid, 2); " + FOR_EVER, "INT HUP TERM"
    )
    connection = connect(folder)
    assert connection is not None
    wait_for("Ctrl-C has ended the worker", lambda: not connection.status().workers)
    os.kill(connection.status().supervisor, signal.SIGTERM)
    connection.close()
    wait_for("the sandbox has ended", lambda: not folder.exists())
    program.kill()
    program.communicate(timeout=20)


# --- when it cannot start ---


def test_a_worker_that_does_not_start_says_why(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match=r"(?s)did not start.*last lines of.*nowhere"):
        sandbox.start_worker(["nowhere"])


def test_a_mail_server_that_does_not_start_says_why_and_leaves_the_broker_alone(folder: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from lab.processes.connection import join\nfrom lab.waiting import wait_for\n"
        "connection = join(Path(sys.argv[1]))\nlog = connection.status().logs / 'mail.log'\n"
        "wait_for('it says why', lambda: 'SMTP_PORT' in log.read_text())\n"
        "print(connection.status().broker)\nconnection.close()"
    )
    program = subprocess.run(
        [sys.executable, "-c", code, folder],
        env=os.environ | {"SMTP_PORT": "nonsense"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert program.stdout.startswith("Process(name='broker'"), program.stderr


def test_a_sandbox_of_another_version_is_left_alone_and_told(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with socket.create_server(str(folder / "control.sock"), family=socket.AF_UNIX) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b'{"supervisor": 1}\n')

        Thread(target=answer).start()
        with pytest.raises(SandboxError, match=f"another version .* runs in {folder}. End it: pkill -f"):
            Sandbox(folder=folder).open()
    shutil.rmtree(folder)


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


@pytest.mark.parametrize("size", [*(f"4k,nr_inodes={number}" for number in (2, 3, 6, 8, 9, 12, 99)), "32k"])
def test_a_full_disk_is_reported_in_one_line_and_nothing_is_left(size: str) -> None:
    # A small file system, in a mount name space of its own: no rights are needed, nothing remains.
    if subprocess.run(["sh", "-c", "unshare -rm true"], capture_output=True).returncode:
        pytest.skip("no mount name space can be made here: `unshare -rm` fails")
    up = f"SANDBOX_DIR=/mnt/s STATE_DIR=/mnt/state {shlex.quote(str(ROOT))}/learn up"
    script = f"mount -t tmpfs -o size={size} none /mnt && {up}; echo $?; ls /mnt"
    program = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=60
    )
    [line] = program.stderr.splitlines()
    assert "No space left on device" in line or "No space left on the device of /mnt" in line
    code, *left = program.stdout.splitlines()
    assert code == "1"
    assert set(left) <= {"state"}


def test_a_folder_with_somebodys_files_is_refused_and_stays(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "precious").touch()
    with pytest.raises(SandboxError, match=r"has files that are not a sandbox's.*SANDBOX_DIR"):
        Sandbox(folder=folder).open()
    assert (folder / "precious").exists()
    shutil.rmtree(folder)
