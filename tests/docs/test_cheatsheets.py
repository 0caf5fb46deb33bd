"""Every line of code in the cheat sheets is run, and gives what the sheet says."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_app import app
from lab.sandbox import Sandbox
from settings import ROOT

SHEETS = sorted((ROOT / "docs" / "cheatsheets").glob("*.md"))


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Return a sandbox with a worker for the queues of the sheets."""
    with Sandbox(["basic", "advanced"]) as sandbox:
        yield sandbox
        sandbox.worker.kill()


@pytest.fixture(autouse=True)
def own_tasks() -> Iterator[None]:
    """Let the app forget the tasks that a sheet shows: other tests look at all that it has."""
    app.loader.import_default_modules()
    before = set(app.tasks)
    yield
    for name in app.tasks.keys() - before:
        app.tasks.unregister(name)


def run(source: str, names: dict[str, Any]) -> int:
    """Run `source`. Compare each expression that has a comment `# -> value`, and return how many had one."""
    lines, compared = source.splitlines(), 0
    for node in ast.parse(source).body:
        first = min([node.lineno, *(part.lineno for part in getattr(node, "decorator_list", ()))])
        text = "\n".join(lines[first - 1 : node.end_lineno])
        code, arrow, expected = text.partition("  # -> ")
        if arrow:
            assert repr(eval(code, names)) == expected, code
            compared += 1
        else:
            exec(text, names)
    return compared


def test_there_is_a_sheet_for_each_subject() -> None:
    assert [sheet.stem for sheet in SHEETS] == ["calling", "canvas", "delivery", "redis-keys", "retries"]


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.stem)
def test_the_code_of_a_sheet_gives_what_the_sheet_says(sheet: Path, sandbox: Sandbox) -> None:
    names = {"broker": sandbox.broker.client(), "backend": sandbox.broker.client(database=1)}
    blocks = re.findall(r"^```python\n(.*?)^```$", sheet.read_text(), re.MULTILINE | re.DOTALL)
    assert run("".join(blocks), names) >= 4


def test_each_sheet_is_linked_from_a_notebook_and_every_link_leads_somewhere() -> None:
    folder = ROOT / "notebooks"
    found = set()
    for notebook in folder.glob("*.ipynb"):
        for target in re.findall(r"\]\((\.\./[^)]+)\)", notebook.read_text()):
            assert (folder / target).is_file(), (notebook.name, target)
            found.add((folder / target).resolve())
    assert set(SHEETS) <= found
