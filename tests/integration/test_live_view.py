"""The live view beside the notebooks shows the sandbox that was opened last, and leaves nothing behind."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from lab.jupyter.extension import ADDRESS, newest_sandbox
from settings import ROOT, Settings
from tests.newcomer import Terminal, answers, free_port
from tests.waiting import processes_of, wait_for

SECONDS = 30


@pytest.fixture
def server(environment: dict[str, str], room: Path) -> Iterator[Terminal]:
    """Run `./learn notebooks`, and press Ctrl-C at the end."""
    terminal = Terminal([], f"./learn notebooks --no-browser --port={free_port()}", ROOT, environment)
    [address] = terminal.wait_for_output(r"(http://127\.0\.0\.1:\d+)/lab/workspaces/learn\?token=").groups()
    wait_for(f"an answer of {address}", partial(answers, address), SECONDS)
    yield terminal
    if terminal.process.poll() is None:
        terminal.interrupt()
        terminal.end()
    wait_for("the end of all processes", lambda: not processes_of(room), SECONDS)


def view(server: Terminal, token: str | None = None) -> HTTPResponse:
    """Return the page of the live view, asked for with the server's own token if none is given."""
    url = urlsplit(server.wait_for_output(r"http://127\.0\.0\.1:\d+/lab\S+")[0])
    connection = HTTPConnection(url.netloc, timeout=SECONDS)
    query = url.query if token is None else f"token={token}"
    connection.request("GET", f"{ADDRESS}?{query}", headers={"Connection": "close"})
    return connection.getresponse()


def wait_for_line(page: HTTPResponse, text: bytes) -> None:
    """Read the page until a line holds `text`. A page that says nothing more is an error, after a time."""
    assert any(text in line for line in iter(page.readline, b"")), f"the page ended without {text!r}"


def viewers(room: Path) -> list[psutil.Process]:
    """Return the programs that draw for a live view."""
    found = []
    for process in processes_of(room):
        with suppress(psutil.NoSuchProcess):  # it ends at this moment
            if "lab.jupyter.live" in process.cmdline():
                found.append(process)
    return found


def test_it_shows_what_runs_and_ends_with_the_server(
    server: Terminal, environment: dict[str, str], room: Path
) -> None:
    page = view(server)
    wait_for_line(page, b"No task yet")
    example = Terminal([], "./learn example basic", ROOT, environment)
    wait_for_line(page, b"succeeded")
    example.end()
    assert viewers(room)


def test_nothing_is_left_when_the_server_is_killed(server: Terminal) -> None:
    page = view(server)
    wait_for_line(page, b"No task yet")
    os.kill(server.process.pid, signal.SIGKILL)
    server.end(-signal.SIGKILL)


def test_a_viewer_ends_when_the_browser_goes_away(server: Terminal, room: Path) -> None:
    page = view(server)
    wait_for_line(page, b"No task yet")
    assert viewers(room)
    page.close()
    wait_for("the end of the viewer", lambda: not viewers(room))


def test_nobody_sees_it_without_the_token(server: Terminal) -> None:
    assert view(server, token="guessed").status in (302, 403)


def test_the_sandbox_that_was_opened_last_is_shown(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.jupyter.extension.settings", Settings(sandbox_dir=room / "sandbox"))
    assert newest_sandbox() is None
    for moment, name in enumerate(["sandbox", "sandbox-12", "sandbox-7"]):
        (room / name).mkdir()
        (room / name / "control.sock").touch()
        os.utime(room / name / "control.sock", (moment, moment))
        assert newest_sandbox() == room / name
    (room / "sandbox-7" / "control.sock").unlink()
    assert newest_sandbox() == room / "sandbox-12"
