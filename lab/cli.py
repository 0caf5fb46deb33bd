"""The `learn` command. `./learn` alone gives the guided tour."""

import contextlib
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from settings import BROKER_DATABASE, ROOT, settings, socket_url, without_password

if TYPE_CHECKING:
    from lab.processes.connection import Status
    from lab.workshop.manifest import Exercise

EXAMPLES = sorted(path.stem.removesuffix("_usage") for path in (ROOT / "examples").glob("*_usage.py"))
NO_PAUSE = click.option("--no-pause", is_flag=True, help="The tour does not wait for Enter after each step.")
ALL_QUEUES = "sandbox-all"  # the worker of ./learn up
CALL_SECONDS = 60
PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}

# The commands as a learner meets them, and under which heading --help shows them.
JOURNEY = {
    "Learn": ["tour", "example", "notebooks", "setup"],
    "Practise": ["exercises", "check", "hint", "progress", "reset"],
    "Try things out": [
        "up",
        "status",
        "call",
        "run",
        "monitor",
        "xray",
        "timeline",
        "diagram",
        "flower",
        "web",
        "down",
    ],
    "Work on this project": ["test", "lint"],
}


class Journey(click.Group):
    """Shows the commands in the order of the journey, and tells in one line what its user can mend."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in their order."""
        return [name for names in JOURNEY.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their headings, each with its whole first sentence."""
        for heading, names in JOURNEY.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [(name, self.commands[name].get_short_help_str(limit=1000)) for name in names]
                )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was typed."""
        try:
            return super().invoke(ctx)
        except BaseException as error:
            from lab.console import explain  # late: most commands need neither Rich nor kombu

            code = explain(error)
            if code is None:
                raise
            sys.exit(code)


@click.group(
    cls=Journey, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@NO_PAUSE
@click.pass_context
def learn(context: click.Context, no_pause: bool) -> None:
    """Learn Celery by running it. Without a command: the guided tour."""
    if context.invoked_subcommand is None:
        context.invoke(tour, no_pause=no_pause)


# --- Learn ---------------------------------------------------------------------------------------------


@learn.command()
@NO_PAUSE
def tour(no_pause: bool) -> None:
    """The guided tour, in a few minutes. In a terminal it waits for Enter after each step."""
    _begin_sandbox()
    from lab.tour import story

    story.main(["--no-pause"] if no_pause else [])


@learn.command()
@click.argument("name", type=click.Choice(EXAMPLES))
@click.option("--no-pause", is_flag=True, help="Do not wait for Enter after each step.")
def example(name: str, no_pause: bool) -> None:
    """Run one of the scripts in examples/. In a terminal it waits for Enter after each step."""
    path = str(ROOT / "examples" / f"{name}_usage.py")
    sys.argv = [path, *(["--no-pause"] if no_pause else [])]
    _begin_sandbox()
    runpy.run_path(path, run_name="__main__")


@learn.command()
def setup() -> None:
    """Fetch what all commands need. After it, none of them needs the network."""
    click.echo("Everything is here. No command needs the network now.")  # the script `learn` has fetched it


def _begin_sandbox() -> None:
    """Let the sandbox start while this program imports what it needs."""
    from lab.processes.connection import begin

    begin(settings.sandbox_folder, settings.state_dir / "logs", with_broker=settings.uses_sandbox)


@learn.command(context_settings={"ignore_unknown_options": True})
@click.option("--no-browser", is_flag=True, help="Open no browser, only print the address.")
@click.option("--port", type=int, help="Where it listens, on this machine only. Otherwise 8888 or the next.")
@click.option("--reset", "names", multiple=True, metavar="NAME", help="Give the course's notebook back.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def notebooks(no_browser: bool, port: int | None, names: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    """Open JupyterLab on the notebooks, with a live view beside them and the sandbox running.

    You work on copies of your own, in workspace. Other options go to `jupyter lab`. Ctrl-C ends it.
    """
    from lab import workspace

    home = settings.workspace_dir
    try:
        for name in names:
            originals = {path.name: path for path in (ROOT / "notebooks").glob("*.ipynb")}
            kept = workspace.reset(originals, home / "notebooks", name)
            click.echo(f"Your own is kept as {kept}", err=True)
        if names:
            return
        for folder in ("notebooks", "docs", "docs/cheatsheets"):  # notebooks link to the others
            for name in workspace.update(workspace.documents(ROOT / folder), home / folder):
                click.echo(f"Kept yours: {name}. The course has a newer one: --reset {name}", err=True)
    except OSError as error:
        raise click.ClickException(f"{error}. Set WORKSPACE_DIR to a folder of yours.") from error
    os.chdir(ROOT)
    as_root = ("--allow-root",) if os.geteuid() == 0 else ()  # in containers; Jupyter asks for it
    # lab/jupyter/extension.py writes the workspace there, and JupyterLab opens it.
    options = (
        f"--LabApp.workspaces_dir={settings.state_dir / 'jupyter'}",
        "--LabApp.default_url=/lab/workspaces/learn",
        "--ServerApp.answer_yes=True",  # Ctrl-C ends it, and asks nothing
        "--Application.log_level=WARN",  # the address then stands last
        *([f"--ServerApp.port={port}"] if port else []),
        *(["--no-browser"] if no_browser else []),
    )
    own = str(ROOT / "lab" / "jupyter" / "config")
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(
        [own, *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    )
    run.callback(("jupyter", "lab", str(home), *as_root, *options, *arguments))  # type: ignore[misc]


# --- Practise ------------------------------------------------------------------------------------------


@learn.command()
@click.argument("name", required=False)
@click.option("--edit-cmd", "edit_command", default="", help="Opens a file in your editor: 'vim {}'.")
def exercises(name: str | None, edit_command: str) -> None:
    """Solve exercises: edit one file, save, and read what a real worker did with it.

    NAME is an exercise, or the number of a notebook, such as 09. Without it: where you were.
    """
    from lab.workshop.forks import begin_sandbox

    folder = begin_sandbox()  # it starts while this program imports what it needs
    from lab.workshop.checker import Checker
    from lab.workshop.manifest import find
    from lab.workshop.progress import read_aloud
    from lab.workshop.watch import Watch

    listed = _exercises()
    state = read_aloud()
    ids = [one.id for one in listed]
    open_ones = [one.id for one in listed if one.id not in state.passed]
    at = state.last if state.last in ids else (open_ones or ids)[0]
    first = next((one for one in listed if one.part == name), None) or find(name or at, listed)
    Watch(listed, Checker(folder), edit_command).run(first)


@learn.command()
@click.argument("name", required=False)
@click.option("--all", "all_of_them", is_flag=True, help="Check all exercises.")
@click.option("--part", default="", help="With --all: only those of one notebook, such as 09.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def check(name: str | None, all_of_them: bool, part: str, as_json: bool) -> None:
    """Check an exercise once, or all: ./learn check retries/backoff."""
    if name is None and not all_of_them:
        raise click.UsageError("name an exercise, or give --all. ./learn progress lists them.")
    from lab.workshop.forks import begin_sandbox
    from lab.workshop.manifest import find

    listed = _exercises()
    exercise = find(name, listed) if name else None
    folder = begin_sandbox() if exercise else None  # it starts while this program imports what it needs
    from lab import console
    from lab.workshop import progress
    from lab.workshop.checker import Checker, check_all

    if exercise is None:
        passed, listed = 0, [one for one in listed if one.part.startswith(part)]
        for number, (one, verdict) in enumerate(
            check_all(listed, progress.file_of, lanes=os.cpu_count() or 1), 1
        ):
            passed += verdict.passed
            click.echo(f"{number:3} of {len(listed)}  {one.id:36} {verdict.kind}")
            if verdict.passed:
                progress.mark_passed(one)
        click.echo(f"{passed} of {len(listed)} passed.")
        sys.exit(passed < len(listed))
    assert folder
    with console.waiting_for("the verdict"), Checker(folder, only_once=True) as checker:
        verdict = checker.check(exercise, progress.file_of(exercise))
    if verdict.passed:
        progress.mark_passed(exercise)
    click.echo(verdict.as_json() if as_json else verdict.text(min(console.out.width, 100)))
    sys.exit(not verdict.passed)


@learn.command()
@click.argument("name")
@click.argument("task", type=int, default=1)
@click.option(
    "--level", type=click.IntRange(1, 3), default=1, help="1 a question, 2 a pointer, 3 nearly the line."
)
def hint(name: str, task: int, level: int) -> None:
    """Give a hint for a task of an exercise: ./learn hint retries/backoff 2 --level 3."""
    from lab import console
    from lab.workshop.manifest import find

    exercise = find(name, _exercises())
    if not (hints := exercise.hints(task)):
        raise click.UsageError(f"task={task}: {exercise.id} has the tasks 1 to {len(exercise.tasks())}")
    console.say(hints[level - 1])


@learn.group(invoke_without_command=True)
@click.pass_context
def progress(context: click.Context) -> None:
    """Show what is solved. `export FILE` and `import FILE` take it, with your files, to another machine."""
    if context.invoked_subcommand is None:
        from lab.workshop.progress import show

        show(_exercises())


@progress.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def export_progress(file: Path) -> None:
    """Write what is solved, and your files, to FILE."""
    from lab.workshop.progress import export

    click.echo(f"{file}: {export(file, _exercises())} of your files")


@progress.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def import_progress(file: Path) -> None:
    """Take over what `export` has written. Files of yours that differ are kept aside."""
    from lab.workshop.progress import take_over

    for aside in take_over(file, _exercises()):
        click.echo(f"Yours is kept as {aside}")
    click.echo("Taken over.")


@learn.command()
@click.argument("name")
def reset(name: str) -> None:
    """Give an exercise's file back as it was. Yours is kept beside it."""
    from lab.workshop.manifest import find
    from lab.workshop.progress import reset

    listed = _exercises()
    click.echo(f"Yours is kept as {reset(find(name, listed), listed)}")


def _exercises() -> "list[Exercise]":
    """Return the exercises, with the learner's files in place."""
    from lab.workshop import progress
    from lab.workshop.manifest import load

    listed = load()
    for name in progress.copy_stubs(listed):
        click.echo(f"Kept yours: {name}. The course has a newer one: ./learn reset {name[:-3]}", err=True)
    return listed


# --- Try things out ------------------------------------------------------------------------------------


@learn.command()
@click.option("--broker-only", is_flag=True, help="Start the broker and no worker.")
@click.option("--concurrency", default=2, show_default=True, help="How many tasks the worker runs at a time.")
@click.option("--restart", is_flag=True, help="Start the worker again, with the code as it is now.")
def up(broker_only: bool, concurrency: int, restart: bool) -> None:
    """Start the sandbox, a broker and a worker for all queues, and keep it running."""
    from celery_app import QUEUES
    from lab import console
    from lab.sandbox import Sandbox

    if not settings.uses_sandbox:
        raise click.ClickException(
            f"CELERY_BROKER_URL names {without_password(settings.broker_url)}: the sandbox is not used. "
            "Start a worker with ./start_worker.sh"
        )
    with console.waiting_for("the sandbox"), Sandbox(concurrency=concurrency) as sandbox:
        workers = sandbox.connection.status().workers
        worker = next((worker for worker in workers if worker.name == ALL_QUEUES), None)
        if worker and restart:
            sandbox.connection.end(worker.pid, signal.SIGTERM)  # it finishes what it runs
            worker = None
        if not worker and not broker_only:
            sandbox.start_worker(QUEUES, name="all", pinned=True)
        status_now = sandbox.connection.pin()
    show(status_now)
    say_what_is_newer(status_now)
    console.say("Stop it with ./learn down")


def say_what_is_newer(status: "Status") -> None:
    """Say so if the code has changed since the worker of `./learn up` has started: it does not see that."""
    started = [worker.started for worker in status.workers if worker.name == ALL_QUEUES]
    if started and (newer := newer_code(started[0])):
        click.echo(f"  {newer} is newer than the worker. Start that again: ./learn up --restart", err=True)


def newer_code(moment: float) -> str | None:
    """Return the newest file of the app's code if it was changed after `moment`, or None."""
    code = [*ROOT.glob("*.py"), *ROOT.glob("tasks/**/*.py"), *ROOT.glob("services/**/*.py"), ROOT / ".env"]
    changed = {path.stat().st_mtime: path for path in code if path.exists()}
    return str(changed[max(changed)].relative_to(ROOT)) if max(changed) > moment else None


@learn.command()
def status() -> None:
    """Show what runs in the sandbox."""
    from lab.sandbox import connect

    connection = connect(settings.sandbox_folder)
    if connection is None:
        click.echo("No sandbox runs. Start it with ./learn up")
        sys.exit(1)
    show(connection.status())
    connection.close()
    if not settings.uses_sandbox:
        click.echo(f"CELERY_BROKER_URL names another broker: {without_password(settings.broker_url)}")


def show(status: "Status") -> None:
    """Print the state of the sandbox as lines of name, process id and log file."""
    workers = status.workers or (None,)
    for kind, process in [("broker", status.broker), *(("worker", worker) for worker in workers)]:
        if process:
            click.echo(f"{kind:8} {process.name:16} pid {process.pid:<8} log {process.log}")
        else:
            click.echo(f"{kind:8} not running")
    click.echo(f"{'URL':8} {socket_url(settings.sandbox_folder, BROKER_DATABASE)}")


@learn.command()
@click.argument("expression")
def call(expression: str) -> None:
    """Send a task or a canvas, and print its result: ./learn call 'add.s(4, 5)'."""
    from celery_app import QUEUES
    from lab.canvas import canvas_of
    from lab.serving import served

    canvas = canvas_of(expression)
    with served(QUEUES) as sandbox:
        say_what_is_newer(sandbox.connection.status())
        value = canvas.delay().get(timeout=CALL_SECONDS, propagate=False)
    if isinstance(value, BaseException):
        raise click.ClickException(f"the task failed: {value!r}")
    click.echo(value)


@learn.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(command: tuple[str, ...]) -> None:
    """Run a command while the sandbox's broker is up: ./learn run celery -A celery_app inspect ping."""
    from lab.sandbox import join

    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if not (program := shutil.which(command[0])):
        raise click.ClickException(f"{command[0]}: no such command")
    if settings.uses_sandbox:
        connection = join(settings.sandbox_folder, settings.state_dir / "logs")
        # The command inherits the open connection: the broker stays as long as the command runs.
        connection.link.set_inheritable(True)
        click.echo(f"Broker: the sandbox's own, {settings.broker_url}", err=True)
    else:
        click.echo(f"Broker: {without_password(settings.broker_url)}", err=True)
    os.execv(program, command)  # noqa: S606 - the learner's own command


@learn.command()
def monitor() -> None:
    """Watch queues and workers, until Ctrl-C."""
    from monitor import main

    main()


@learn.command()
@click.argument("queue", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--limit", default=10, show_default=True, help="How many entries of each kind to read.")
@click.option("--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
def xray(queue: str | None, as_json: bool, limit: int, watch: bool) -> None:
    """Look into the broker: messages that wait or are unacknowledged, results, bindings. Changes nothing."""
    from celery_app import require_broker
    from lab import console
    from lab.xray import xray
    from monitor import watch as show_again

    require_broker()
    if as_json:
        click.echo(xray(queue, limit).as_json())
    elif watch:
        show_again(lambda: xray(queue, limit))
    else:
        console.out.print(xray(queue, limit), soft_wrap=False)


@learn.command()
@click.option("--seconds", type=float, help="How long to collect. Without it: until Ctrl-C.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Draw it to a file.")
def timeline(seconds: float | None, svg: Path | None) -> None:
    """Collect what workers run from now on, and then show who ran what, and when."""
    from celery_app import require_broker
    from lab.timeline import Timeline

    if svg and not os.access(svg.parent, os.W_OK):  # say so before the wait, not after it
        raise click.BadParameter(f"nothing can be written in the folder {svg.parent}", param_hint="--svg")
    require_broker()
    with Timeline() as timeline:
        click.echo(f"Collecting {f'for {seconds:g} s' if seconds else 'until Ctrl-C'} …", err=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait(seconds)
    click.echo(timeline.text(width=shutil.get_terminal_size((110, 0)).columns))
    if svg:
        svg.write_text(timeline.svg())


@learn.command()
@click.argument("expression")
@click.option("--run", "run_it", is_flag=True, help="Send it too, and show the states and the timeline.")
def diagram(expression: str, run_it: bool) -> None:
    """Draw a canvas: ./learn diagram 'fetch_data.s("north") | process_item.s()'."""
    from celery_app import QUEUES
    from lab import console
    from lab.diagram import canvas_of, diagram
    from lab.serving import served
    from lab.timeline import Timeline

    canvas = canvas_of(expression)
    picture = diagram(canvas)
    if run_it:
        with served(QUEUES), Timeline() as timeline:
            result = canvas.delay()
            picture = diagram(canvas, result, timeline.wait_for(result, seconds=60))
        console.heading("Timeline")
        click.echo(timeline.text(width=console.out.width))
    console.heading("Canvas")
    click.echo(picture.text())
    console.heading("The same as Mermaid text")
    click.echo(picture.mermaid)


@learn.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def flower(arguments: tuple[str, ...]) -> None:
    """Open Flower, a web page that shows workers and tasks. Options go to `celery flower`."""
    os.chdir(ROOT)
    run.callback(("celery", "-A", "celery_app", "flower", *arguments))  # type: ignore[misc]


@learn.command()
@click.option("--no-browser", is_flag=True, help="Open no browser, only print the address.")
@click.option("--port", type=click.IntRange(1, 65535), help="Where it listens. Otherwise 8000 or the next.")
def web(no_browser: bool, port: int | None) -> None:
    """Open a web page that submits tasks and shows them live: broker, workers and API. Ctrl-C ends all."""
    _begin_sandbox()
    from lab.web import run

    run(port, browser=not no_browser)


@learn.command()
def down() -> None:
    """Stop the sandbox, its workers and its broker, with all that is queued in it."""
    from lab.sandbox import connect, remove_what_is_left

    connection = connect(settings.sandbox_folder)
    if connection is None:
        remove_what_is_left(settings.sandbox_folder)
        click.echo("No sandbox runs.")
        return
    connection.stop()
    click.echo("The sandbox has ended.")


# --- Work on this project ------------------------------------------------------------------------------


@learn.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> NoReturn:
    """Run the tests, on all cores. Arguments go to pytest."""
    os.chdir(ROOT)
    # In the place of this process: what ends the command ends the tests. A later `-n` wins.
    command = [sys.executable, "-m", "pytest", "-n", "auto", *arguments]
    os.execv(sys.executable, command)  # noqa: S606 - our own command


@learn.command()
def lint() -> None:
    """Check style, types, layers and shell scripts."""
    os.chdir(ROOT)
    scripts = ["learn", "start_worker.sh", "start_beat.sh", "start_flower.sh", ".ci/run"]
    checks = [
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["mypy"],
        ["lint-imports"],
        ["shellcheck", *scripts],
    ]
    folder = Path(sys.executable).parent
    failed = [
        check for check in checks if subprocess.run([folder / check[0], *check[1:]], check=False).returncode
    ]
    if failed:
        raise click.ClickException("failed: " + ", ".join(" ".join(check) for check in failed))


def main() -> None:
    """Run the command."""
    learn(prog_name="learn")


if __name__ == "__main__":
    main()
