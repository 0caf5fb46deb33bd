"""The learn command: its help, and how it ends when the broker is absent, frozen or full: in one line."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click import Context
from click.testing import CliRunner
from kombu.exceptions import OperationalError

from lab.cli import JOURNEY, learn
from lab.faults import fill, make_room
from lab.sandbox import Sandbox, SandboxError
from settings import ROOT
from tests.newcomer import free_port
from tests.waiting import wait_for, wait_until_gone

CANVAS = "add.s(1, 2)"
SENDS = (["tour"], ["example", "basic"], ["diagram", "--run", CANVAS])
LOOKS = (["xray"], ["timeline", "--seconds", "0.1"])
NEEDS_NO_BROKER = (["status"], ["run", "true"], ["diagram", CANVAS], ["test", "--version"])


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "learn", *command],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def assert_fails_in_one_line(program: subprocess.CompletedProcess[str], pattern: str) -> None:
    assert program.returncode == 1
    [line] = program.stderr.splitlines()
    assert re.match(rf"Error: .*{pattern}", line), line


# --- help ---


def test_help_shows_every_command_on_the_journey_and_those_of_developers_last() -> None:
    assert sorted(learn.list_commands(Context(learn))) == sorted(learn.commands)
    text = run(["--help"]).stdout
    places = [text.index(f"\n  {name} ") for name in learn.list_commands(Context(learn))]
    assert places == sorted(places)
    assert list(JOURNEY.values())[-1] == ["test", "lint"]


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_help_cuts_no_sentence(columns: str) -> None:
    words = " ".join(run(["--help"], COLUMNS=columns).stdout.split())
    for name, command in learn.commands.items():
        first, _, _ = " ".join((command.help or "").split()).partition(". ")
        assert f"{name} {first.removesuffix('.')}" in words


# --- one place turns errors into one line ---


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SandboxError("it broke"), 1, "Error: it broke\n"),
        (OperationalError("it broke"), 1, "Error: it broke\n"),
        (ValueError("it broke"), 1, "Error: it broke\n"),
        (TimeoutError("it broke"), 1, "Error: it broke\n"),
        (SystemExit("it broke"), 1, "Error: it broke\n"),
        (SystemExit(3), 3, ""),
        (KeyboardInterrupt(), 130, "Error: interrupted\n"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", learn.commands)
def test_every_command_ends_an_error_in_one_line(
    name: str, error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(learn.commands[name], "callback", fail)
    monkeypatch.setattr(learn.commands[name], "params", [])
    result = CliRunner().invoke(learn, [name])
    assert (result.exit_code, result.output) == (code, line)


def test_a_fault_of_our_own_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AttributeError("our own fault")

    monkeypatch.setattr(learn.commands["status"], "callback", fail)
    assert isinstance(CliRunner().invoke(learn, ["status"]).exception, AttributeError)


def test_what_was_typed_wrongly_is_told_in_one_line(sandbox: Sandbox) -> None:
    assert_fails_in_one_line(run(["xray", "baisc"]), "'baisc'")
    assert_fails_in_one_line(run(["diagram", "add.s("]), r"'add\.s\(' does not work")
    assert_fails_in_one_line(run(["diagram", "add.s(1) | 5"]), "does not work")
    assert_fails_in_one_line(run(["run", "celry"]), "celry: no such command")
    assert "the folder /nowhere" in run(["timeline", "--svg", "/nowhere/x.svg"]).stderr


# --- the broker is absent, frozen, full ---


@pytest.fixture
def frozen(sandbox: Sandbox) -> Iterator[None]:
    sandbox.broker.freeze()
    yield
    sandbox.broker.thaw()


@pytest.fixture
def full(sandbox: Sandbox) -> Iterator[None]:
    fill(sandbox.broker)
    yield
    make_room(sandbox.broker)


@pytest.mark.parametrize("command", [*SENDS, *LOOKS, ["up"]], ids=" ".join)
def test_a_frozen_broker_is_told_in_one_line(command: list[str], frozen: None) -> None:
    assert_fails_in_one_line(run(command), "The broker at .* does not answer")


@pytest.mark.parametrize("command", [*SENDS, ["up"]], ids=" ".join)
def test_a_full_broker_is_told_in_one_line(command: list[str], full: None) -> None:
    assert_fails_in_one_line(run(command), "The broker at .* has no memory left")


def test_a_timeline_that_a_full_broker_refuses_ends_in_one_line(full: None) -> None:
    assert_fails_in_one_line(run(["timeline", "--seconds", "0.1"]), "")


def test_a_full_broker_can_be_looked_into(full: None) -> None:
    assert run(["xray"]).returncode == 0


@pytest.mark.parametrize("command", [*SENDS, *LOOKS], ids=" ".join)
def test_an_absent_broker_of_the_user_is_told_in_one_line(command: list[str]) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    program = run(command, CELERY_BROKER_URL=f"{url}/0", CELERY_RESULT_BACKEND=f"{url}/1")
    assert_fails_in_one_line(program, f"The broker at {url}/0 does not answer .*refused")


def test_a_broker_of_the_user_is_not_started(folder: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    up = run(["up"], CELERY_BROKER_URL=f"{url}/0", CELERY_RESULT_BACKEND=f"{url}/1", SANDBOX_DIR=str(folder))
    assert_fails_in_one_line(up, f"CELERY_BROKER_URL names {url}/0: the sandbox is not used")


@pytest.mark.parametrize("command", LOOKS, ids=" ".join)
def test_a_sandbox_that_does_not_run_is_told_in_one_line(command: list[str], folder: Path) -> None:
    assert_fails_in_one_line(run(command, SANDBOX_DIR=str(folder)), "does not answer .* with ./learn up")


@pytest.mark.parametrize("state", ["frozen", "full"])
def test_what_needs_no_broker_works(state: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(state)
    for command in NEEDS_NO_BROKER:
        program = run(command)
        assert (program.returncode, "Error" in program.stderr) == (0, False), program.stderr


def test_a_frozen_sandbox_can_be_ended(folder: Path) -> None:
    with Sandbox(folder=folder) as sandbox:
        sandbox.connection.pin()
        sandbox.broker.freeze()
        assert run(["down"], SANDBOX_DIR=str(folder)).stdout == "The sandbox has ended.\n"
    assert run(["status"], SANDBOX_DIR=str(folder)).stdout == "No sandbox runs. Start it with ./learn up\n"


# --- Ctrl-C, and a reader that has enough ---


def start(folder: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [ROOT / "learn", *command],
        env=os.environ | {"SANDBOX_DIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("command", [["tour"], ["example", "basic"]], ids=" ".join)
def test_ctrl_c_ends_a_story_with_130_and_leaves_nothing(folder: Path, command: list[str]) -> None:
    program = start(folder, *command)
    wait_for("it runs", (folder / "broker.sock").exists, seconds=30)
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=30)
    # Python ends itself by the signal if that came inside of an exec(). A shell says 130 of that, too.
    assert program.returncode in (130, -signal.SIGINT)
    assert said == "Error: interrupted\n"
    wait_until_gone(folder)


@pytest.mark.parametrize(
    "command", [["tour"], ["diagram", CANVAS], ["diagram", "--run", CANVAS], ["--help"]], ids=" ".join
)
def test_a_reader_that_has_enough_is_no_error(folder: Path, command: list[str]) -> None:
    program = start(folder, *command)
    assert program.stdout
    program.stdout.close()
    _, said = program.communicate(timeout=60)
    assert (program.returncode, said) == (1, "")
    wait_until_gone(folder)
