"""A checker in a process of its own, as a learner has it. It outlives single tests, as in watch mode."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.workshop.verdicts import Verdict
from settings import ROOT, settings

Check = Callable[[str, Path], Verdict]


class Server:
    """A program that checks files."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lab.workshop.checker"],
            cwd=ROOT,
            # Other tests wait until nothing has the name of their sandbox in its environment.
            env=os.environ | {"SANDBOX_DIR": str(settings.sandbox_folder.with_name("checks"))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def check(self, name: str, file: Path) -> Verdict:
        """Return the verdict on a file."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"id": name, "file": str(file)}) + "\n")
        self.process.stdin.flush()
        return Verdict.of(json.loads(self.process.stdout.readline()))

    def end(self) -> None:
        """End it in good order."""
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(timeout=20) == 0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat what runs a check, as often as --flakes says."""
    repeats = metafunc.config.getoption("flakes")
    if repeats > 1 and {"check", "server"} & set(metafunc.fixturenames):
        metafunc.fixturenames.append("repeat")
        metafunc.parametrize("repeat", range(repeats))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.end()


@pytest.fixture
def check(server: Server) -> Check:
    return server.check
