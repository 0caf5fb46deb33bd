"""What a newcomer has: a copy of the project, an empty home, and terminals."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from http.client import HTTPConnection
from pathlib import Path

from settings import ROOT, Settings
from tests.waiting import wait_for


class Terminal:
    """A command as typed in a terminal of its own, with its output in a file."""

    def __init__(
        self, typed_before: list[str], command: str, folder: Path, environment: dict[str, str]
    ) -> None:
        self.command = command
        handle, name = tempfile.mkstemp(dir=environment["HOME"], suffix=".txt")
        self._output = Path(name)
        # `exec`: the command takes the shell's place, so that Ctrl-C and the exit code are its own.
        self.process = subprocess.Popen(
            ["sh", "-c", "\n".join([*typed_before, f"exec {command}"])],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(handle)

    @property
    def output(self) -> str:
        """All that it has printed until now."""
        return self._output.read_text()

    def wait_for_output(self, pattern: str) -> re.Match[str]:
        """Wait until it prints what matches, and return that."""
        expression = re.compile(pattern, re.MULTILINE)
        wait_for(
            f"{self.command} prints {pattern}",
            lambda: expression.search(self.output) or self.process.poll() is not None,
            seconds=30,
        )
        found = expression.search(self.output)
        assert found, f"{self.command}\n{self.output}"
        return found

    def end(self, expected: int = 0) -> None:
        """Wait until it has ended, and check its exit code."""
        assert self.process.wait(60) == expected, f"{self.command}\n{self.output}"

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)


def copy_project(folder: Path) -> None:
    """Make `folder` a copy of this project that has our packages, so that nothing is downloaded."""
    shutil.copytree(
        ROOT,
        folder,
        ignore=shutil.ignore_patterns(
            ".git", ".venv", ".uv", ".state", ".env", ".*_cache", "__pycache__", "out"
        ),
    )
    borrow_packages(folder)


def borrow_packages(folder: Path) -> None:
    """Make `folder`/.venv: links to our packages, and copies of all that holds this project's path."""
    ours, its = ROOT / ".venv", folder / ".venv"
    packages = next(ours.glob("lib/python3*/site-packages")).relative_to(ours)
    for place in ("bin", str(packages)):
        (its / place).mkdir(parents=True)
        for path in (ours / place).iterdir():
            holds_path = path.suffix == ".pth" or (place == "bin" and path.stat().st_size < 100_000)
            if path.is_symlink():
                (its / place / path.name).symlink_to(path.readlink())
            elif path.is_file() and holds_path:
                text = path.read_text().replace(str(ROOT), str(folder))
                (its / place / path.name).write_text(text)
                shutil.copymode(path, its / place / path.name)
            else:
                (its / place / path.name).symlink_to(path)
    shutil.copy(ours / "pyvenv.cfg", its)
    (its / "share").symlink_to(ours / "share")
    for mark in ("celery", "pytest", "jupyter-lab", "uvicorn"):  # what `./learn test` has installed
        shutil.copy(ROOT / "uv.lock", its / f".learn-{mark}")


def environment_of_a_newcomer(room: Path) -> dict[str, str]:
    """Return the environment of a new user: none of our settings, an empty home in `room`, no browser."""
    settings = {name.upper() for name in Settings.model_fields}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {*settings, "VIRTUAL_ENV", "PYTHONPATH"} and not name.startswith(("UV_", "FLOWER_"))
    }
    home = room / "home"
    home.mkdir()

    uv = shutil.which(
        "uv",
        path=os.pathsep.join([os.environ["PATH"], os.path.expanduser("~/.local/bin"), f"{ROOT}/.uv/bin"]),
    )
    assert uv, "no uv found; ./learn puts it into .uv"
    (room / "bin").mkdir()
    (room / "bin/uv").symlink_to(uv)
    return inherited | {
        "PATH": f"{room}/bin{os.pathsep}{os.environ['PATH']}",
        "UV_NO_SYNC": "1",  # the packages are links to ours: uv must not change them
        "UV_OFFLINE": "1",
        "HOME": str(home),
        "BROWSER": "true",
        "SANDBOX_DIR": f"{room}/sandbox",
        "STATE_DIR": f"{room}/state",
        "WORKSPACE_DIR": f"{room}/workspace",
        "FLOWER_PORT": str(free_port()),
        "PERIODIC_TASK_SECONDS": "1",
    }


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def answers(address: str) -> bool:
    """Tell whether a web server answers, be it with an error such as "log in first"."""
    connection = HTTPConnection(address.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status > 0
    except OSError:
        return False
    finally:
        connection.close()
