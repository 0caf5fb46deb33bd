"""What ./learn does where the network is cut, where one may not write, and where a sandbox cannot start."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from lab.processes.connection import SandboxError, begin, join
from settings import ROOT
from tests.waiting import processes_of, wait_for

SCRIPT = (ROOT / "learn").read_text()


def can_cut_the_network() -> bool:
    if not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_cut_the_network(), reason="unshare -n is missing or not allowed: run as root")
@pytest.mark.parametrize(
    "command",
    ["example basic", "notebooks --version", "test -q -n 0 tests/unit/test_paths.py"],
)
def test_after_setup_no_command_needs_the_network(
    copy: Path, environment: dict[str, str], command: str
) -> None:
    program = subprocess.run(
        ["unshare", "-n", "./learn", *command.split()],
        cwd=copy,
        env=environment | {"HTTPS_PROXY": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert program.returncode == 0, program.stderr
    wait_for("the end of all processes", lambda: not processes_of(copy.parent))


def test_setup_installs_what_every_command_installs() -> None:
    commands = re.findall(r"^\w[\w|]*\) install (\S+)(.*) ;;$|^\*\) install (\S+) ;;$", SCRIPT, re.MULTILINE)
    tools = {tool or other for tool, _, other in commands}
    groups = {group for _, wanted, _ in commands for group in wanted.split()}
    [setup] = re.findall(r"^setup\(\) \{\n(.*?)^\}", SCRIPT, re.MULTILINE | re.DOTALL)
    assert tools == {"celery", "pytest", "jupyter-lab", "ruff", "uvicorn"}
    for name in (tools | groups) - {"celery"}:  # every installation has that one
        assert re.search(rf"\b{name}\b", setup), name


def test_a_checkout_where_one_may_not_write_says_what_to_do() -> None:
    nobody = 65534 if os.geteuid() == 0 else None  # whoever is root may write everywhere
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # everybody may enter /tmp, and not our own room
        shutil.copy(ROOT / "learn", name)
        Path(name).chmod(0o555)
        program = subprocess.run(
            [f"{name}/learn"], capture_output=True, text=True, timeout=60, user=nobody, cwd="/"
        )
    assert program.returncode == 1
    [line] = program.stderr.splitlines()
    assert line.startswith(f"learn: you may not write in {name}. Clone the project into a folder of yours")


def test_a_sandbox_that_was_begun_and_could_not_start_says_why(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    begin(folder, tmp_path / "file" / "logs")
    wait_for("its end", lambda: not processes_of(folder))
    with pytest.raises(SandboxError, match=r"could not start .* Not a directory: .*/file/logs"):
        join(folder, tmp_path / "file" / "logs")
