"""The commands of the workshop, as a learner types them, in a workspace of their own."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.workshop.manifest import load
from settings import ROOT
from tests.waiting import processes_of, wait_for

FIRST, SECOND = load()[:2]


@pytest.fixture
def environment(tmp_path: Path, room: Path) -> dict[str, str]:
    return os.environ | {
        "WORKSPACE_DIR": str(tmp_path / "workspace"),
        "SANDBOX_DIR": str(room / "sandbox"),
        "STATE_DIR": str(tmp_path / "state"),
        "COLUMNS": "80",
    }


@pytest.fixture
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="w-") as folder:
        yield Path(folder)
        wait_for("all processes have ended", lambda: not processes_of(folder))


def learn(environment: dict[str, str], *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab.cli", *arguments],
        cwd=ROOT,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def file_of(environment: dict[str, str], name: str = FIRST.id) -> Path:
    return Path(environment["WORKSPACE_DIR"]) / "exercises" / f"{name}.py"


def solve(environment: dict[str, str]) -> None:
    file_of(environment).parent.mkdir(parents=True, exist_ok=True)
    file_of(environment).write_bytes(FIRST.solution.read_bytes())


def test_a_check_says_what_was_seen_and_its_exit_code_whether_it_passed(environment: dict[str, str]) -> None:
    first = learn(environment, "check", "add_tax")
    assert first.returncode == 1
    assert f"{FIRST.id}: not attempted" in first.stdout
    assert max(map(len, first.stdout.splitlines())) <= 80
    solve(environment)
    second = learn(environment, "check", FIRST.id, "--json")
    assert second.returncode == 0, second.stdout
    assert json.loads(second.stdout)["kind"] == "passed"
    assert re.search(rf"\[x\] 01 {FIRST.id}", learn(environment, "progress").stdout)


def test_names_that_are_not_known_are_refused(environment: dict[str, str]) -> None:
    for arguments in (["check", "nosuch"], ["hint", "retries"], ["reset", "nosuch"]):
        done = learn(environment, *arguments)
        assert done.returncode == 1
        assert "must name one exercise of" in done.stderr
    assert "name an exercise" in learn(environment, "check").stderr
    assert "has the tasks 1 to 2" in learn(environment, "hint", "add_tax", "7").stderr


def test_hints_have_three_levels(environment: dict[str, str]) -> None:
    said = [learn(environment, "hint", "add_tax", "1", "--level", level).stdout.strip() for level in "13"]
    assert said == FIRST.hints(1)[::2]


def test_in_a_pipe_keys_are_lines(environment: dict[str, str]) -> None:
    solve(environment)
    done = learn(environment, "exercises", typed="d\nn\nh\nr\nd\nn\nt\nl\nadd_tax\nx\nq\n")
    assert done.returncode == 0, done.stderr
    shown = done.stdout
    assert "The difference is shown after a pass." in shown
    assert "Next: after a pass." in shown
    assert f"Hint 1 of 3 for task 1: {FIRST.hints(1)[0]}" in " ".join(shown.split())
    assert shown.index("Running …") < shown.index(f"{FIRST.id}: passed")
    assert "No line differs." in shown
    assert f"2 of {len(load())}: {SECOND.title}" in shown
    assert "Reload the file in your editor." in shown
    assert "\x1b" not in shown
    assert file_of(environment).read_bytes() == FIRST.stub.read_bytes()
    assert file_of(environment).with_suffix(".old.py").read_bytes() == FIRST.solution.read_bytes()


class Watcher:
    """`./learn exercises` in a terminal of 80 columns and 24 rows."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.shown = ""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.environ.clear()
            os.environ |= environment | {"TERM": "xterm", "LINES": "24"}
            os.execv(sys.executable, [sys.executable, "-m", "lab.cli", "exercises"])

    def read(self) -> str:
        while select.select([self.terminal], [], [], 0.02)[0]:
            try:
                data = os.read(self.terminal, 65536)
            except OSError:  # it has ended
                break
            self.shown += data.decode(errors="replace")
        return self.shown

    def wait_for(self, text: str) -> None:
        wait_for(f"{text!r} in {self.shown!r}", lambda: text in self.read(), 30)

    def press(self, keys: str) -> None:
        self.shown = ""
        os.write(self.terminal, keys.encode())

    def end(self) -> int:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.terminal)
                return os.waitstatus_to_exitcode(status)
        raise TimeoutError(self.shown)


def test_in_a_terminal_a_save_is_checked_and_nothing_moves_by_itself(environment: dict[str, str]) -> None:
    watcher = Watcher(environment)
    watcher.wait_for("q quit")
    assert "1 of" in watcher.shown
    assert str(file_of(environment)) in watcher.shown.replace("\r\n", "")
    watcher.shown = ""
    solve(environment)
    watcher.wait_for("It works.")
    watcher.wait_for("q quit")
    assert f"{FIRST.id}: passed" in watcher.shown
    watcher.press("n")
    watcher.wait_for(SECOND.title)
    watcher.press("q")
    assert watcher.end() == 0


def test_the_next_start_begins_where_the_last_one_ended(environment: dict[str, str]) -> None:
    solve(environment)
    learn(environment, "exercises", typed="r\nn\nq\n")
    assert SECOND.title in learn(environment, "exercises", typed="q\n").stdout


def test_ctrl_c_ends_it(environment: dict[str, str]) -> None:
    watcher = Watcher(environment)
    watcher.wait_for("q quit")
    watcher.press("\x03")
    assert watcher.end() in (130, -signal.SIGINT)


def test_nothing_is_left_of_a_watcher_that_was_killed_in_a_check(
    environment: dict[str, str], room: Path
) -> None:
    watcher = Watcher(environment)
    watcher.wait_for("q quit")
    watcher.shown = ""
    text = FIRST.solution.read_text().replace("    return", "    while True:\n        pass\n    return")
    file_of(environment).write_text(text)
    watcher.wait_for("Running")
    wait_for("a worker runs", lambda: len(processes_of(room)) > 4)
    os.kill(watcher.pid, signal.SIGKILL)
    assert watcher.end() == -signal.SIGKILL
    wait_for("all have ended", lambda: not processes_of(room))
    wait_for("no folder is left", lambda: not list(room.iterdir()))


def test_a_broker_that_ends_in_a_check_is_said_and_the_next_check_works(
    environment: dict[str, str], room: Path
) -> None:
    watcher = Watcher(environment)
    watcher.wait_for("q quit")
    watcher.shown = ""
    text = FIRST.solution.read_text().replace(
        "    return", "    print('begun')\n    while True:\n        pass\n    return"
    )
    file_of(environment).write_text(text)
    watcher.wait_for("Running")
    [printed] = wait_for("the task runs", lambda: list(room.glob("*/exercise/printed")))
    assert "begun" in printed.read_text()
    [broker] = [found for found in processes_of(room) if "valkey" in found.name() or "redis" in found.name()]
    broker.kill()
    watcher.wait_for("broker down")
    watcher.wait_for("q quit")
    watcher.shown = ""
    solve(environment)
    watcher.wait_for("It works.")
    watcher.press("q")
    assert watcher.end() == 0


def test_all_are_checked_side_by_side(environment: dict[str, str]) -> None:
    solve(environment)
    done = learn(environment, "check", "--all", "--part", "01")
    assert done.returncode == 1
    assert re.search(rf"of 3  {FIRST.id} +passed", done.stdout), done.stdout
    assert done.stdout.splitlines()[-1] == "1 of 3 passed."


def test_progress_and_files_move_to_another_machine(environment: dict[str, str], tmp_path: Path) -> None:
    solve(environment)
    learn(environment, "check", FIRST.id)
    bundle = str(tmp_path / "bundle.json")
    assert learn(environment, "progress", "export", bundle).stdout == f"{bundle}: 1 of your files\n"
    other = environment | {"WORKSPACE_DIR": str(tmp_path / "other")}
    learn(other, "progress")
    file_of(other).write_text("# mine, begun on the other machine\n")
    taken = learn(other, "progress", "import", bundle)
    assert taken.returncode == 0, taken.stderr
    assert "Yours is kept as" in taken.stdout
    assert file_of(other).read_bytes() == FIRST.solution.read_bytes()
    assert file_of(other).with_suffix(".old.py").read_text().startswith("# mine")
    assert re.search(rf"\[x\] 01 {FIRST.id}", learn(other, "progress").stdout)
