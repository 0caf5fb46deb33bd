"""The files for Codespaces and Binder run commands that exist."""

import json
import subprocess

import pytest

from lab.cli import learn
from settings import ROOT


def test_the_devcontainer_runs_learn_commands() -> None:
    config = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    commands = [command.split() for command in config["postCreateCommand"].split(" && ")]
    assert all(command[0] == "./learn" for command in commands)
    assert {command[1] for command in commands if len(command) > 1} <= set(learn.commands)


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_the_scripts_for_binder_are_valid_and_run_learn(name: str) -> None:
    script = ROOT / ".binder" / name
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", script], check=True, timeout=10)
    assert "./learn" in script.read_text()
