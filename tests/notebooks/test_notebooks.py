"""Each notebook runs from top to bottom in a clean kernel, shows what its text says, and leaves nothing."""

import base64
import io
import os
import re
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from PIL import Image
from traitlets.config import Config

from lab.prediction import compare, predict
from settings import ROOT
from tests.claims.test_gate import CLAIM
from tests.waiting import processes_of, wait_for

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIRST_TASK = ROOT / "notebooks" / "01_first_task.ipynb"
INDEX = (ROOT / "notebooks" / "README.md").read_text()


class Lesson(NamedTuple):
    """What a notebook holds: how many cells, claims and pictures, and what happens after each prediction."""

    cells: int
    claims: int
    pictures: int
    happened: str


LESSONS = {
    "00_start_here": Lesson(38, 3, 5, "0 | 2 | 4"),
    "01_first_task": Lesson(59, 8, 1, "PENDING | PENDING | sandbox-basic | 1 | here | before sending"),
    "02_inside_a_message": Lesson(
        *(68, 11, 0),
        "about 1000 bytes | 400000 | KeyError | February | PENDING | yes | 2 | 1",
    ),
    "03_calling_routing_priorities": Lesson(
        *(83, 14, 2),
        "in the worker | 1 | no error | PENDING | celery | 2 | p0 | p2 | 4 | advanced 1 | time_limited_task",
    ),
    "04_states_and_progress": Lesson(
        *(71, 12, 1),
        "PROGRESS | 1 | None | {'rows': 3} | SUCCESS | ValueError | ValueError | 100"
        " | PENDING | PENDING | AttributeError",
    ),
    "05_schedules": Lesson(
        *(64, 13, 2),
        "yes | none | 2 | no | 0 | more than once | after the visibility timeout | 10:00",
    ),
    "06_chains": Lesson(
        *(91, 15, 10),
        "3, 10, 'subtract' | advanced | 1 | 212 | TypeError | FAILURE | FAILURE | 0 | 1 | PENDING | PENDING",
    ),
    "07_groups_chunks_starmap": Lesson(
        *(91, 14, 5),
        "100 | 10 | 10 | 5 | 3 | 1 | finished in 1.3 s | ConnectionError | 0 | 0 | ValueError | RuntimeError"
        " | 6",
    ),
    "08_chords": Lesson(64, 9, 6, "1 | PENDING | PENDING | 1 | 1 | [4, 16] | PENDING | 3"),
    "09_retries": Lesson(
        *(83, 9, 4),
        "3 | 0.4 | yes | 4 | MaxRetriesExceededError | fallback | SUCCESS | 1 | 4 | 180 | some at once",
    ),
    "10_delivery_guarantees": Lesson(
        *(78, 14, 3),
        "never | 2 | 1 | 2 | 2 | FAILURE | 2 | no | SUCCESS | it is lost",
    ),
    "11_time_rate_prefetch": Lesson(
        *(71, 14, 2),
        "stopped after 1 s of 1.5 s | the caller's | FAILURE | finished in 1.2 s | 2 | 4 | 2 | 100 | wait",
    ),
    "12_pools_and_concurrency": Lesson(44, 8, 3, "2 | 1 | 2 | 1 | yes | no | 1 | silence"),
    "13_async_tasks": Lesson(56, 7, 2, "EncodeError | 0 | RuntimeError | 2 | 1 | yes | SUCCESS"),
    "14_mail_and_images": Lesson(
        *(82, 12, 6),
        "3 | 1 | RETRY | 1 | 2 | about 20,000 bytes | 240 x 160 | refused | 2 | 0",
    ),
    "15_import_export_reports": Lesson(
        *(76, 13, 2),
        "483 | 0 | 5 | ValueError | ' | FAILURE | after the last batch | 0 | about the same",
    ),
}

# Native readers read 238 words a minute (Brysbaert 2019, a review). In a second language, with code to look
# up, it is less. The seconds are our estimate: of a cell, to read it, to run it and to look at what it gave.
WORDS_A_MINUTE = 150
SECONDS_A_CELL = 15
SECONDS_A_PREDICTION = 20
LONGEST_LINE = 80  # of code: what fits beside the live view at 1280 pixels, nearly

WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}}


def read(path: Path) -> NotebookNode:
    """Return a notebook as it is stored, after a check of its format."""
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    return notebook


def execute(notebook: NotebookNode, room: Path, **environment: str) -> None:
    """Execute a notebook in place, in a kernel of this Python. Its outputs are then in its cells."""
    config = Config()
    config.KernelManager.transport = "ipc"  # sockets in our folder: two tests cannot get the same port
    config.KernelManager.ip = f"{room}/kernel"
    config.KernelSpecManager.kernel_dirs = []  # no kernel that somebody has installed, but our own
    own = {"SANDBOX_DIR": f"{room}/sandbox", "STATE_DIR": f"{room}/state", "IPYTHONDIR": f"{room}/ipython"}
    place = {"metadata": {"path": str(ROOT / "notebooks")}}
    client = NotebookClient(notebook, timeout=60, config=config, resources=place)
    client.execute(env=os.environ | own | environment)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the cells that hold code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def leave_out_the_check(notebook: NotebookNode) -> None:
    """Let the cell that checks an exercise only look whether there is such an exercise."""
    for cell in code_cells(notebook):
        cell.source = re.sub(
            r"^check\((.*)\)$", r"from lab.workshop.manifest import find, load; find(\1, load())", cell.source
        )


def beginning(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells up to the one that starts the first worker, and gets a result from it."""
    cells = code_cells(notebook)
    last = next(number for number, cell in enumerate(cells) if "start_worker" in cell.source)
    return cells[: last + 1]


def printed(cell: NotebookNode) -> str:
    """Return what a cell has printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def choices_of(cell: NotebookNode) -> list[str]:
    """Return the choices of the prediction that a cell has asked for; none if the learner types it."""
    [text] = [output.data["text/plain"] for output in cell.outputs if WIDGET in output.get("data", ())]
    choices = text.splitlines()[0].removeprefix("Your prediction:")
    return [choice.strip() for choice in choices.split(" | ")] if choices else []


def pictures_of(cell: NotebookNode) -> list[str]:
    """Return the kinds of the pictures that a cell shows, after a check that none is empty."""
    found = []
    for output in cell.outputs:
        data = output.get("data", {})
        if 'role="list"' in (chart := data.get("text/html", "")):
            assert 'role="listitem"' in chart, cell.source
            found.append("timeline")
        if "```mermaid" in (canvas := data.get("text/markdown", "")):
            assert re.search(r'^ +n\d+\["', canvas, re.MULTILINE), cell.source
            found.append("diagram")
        for kind in ("image/png", "image/jpeg"):
            if data.get(kind):
                image = Image.open(io.BytesIO(base64.b64decode(data[kind])))
                assert len(image.convert("RGB").getcolors(maxcolors=1 << 24) or ()) > 20, cell.source
                found.append(kind)
    return found


def wait_until_nothing_runs(room: Path) -> None:
    """Wait until the kernel and the sandbox of this folder have ended."""
    wait_for(f"the end of all processes of {room}", lambda: not processes_of(room))


def test_no_notebook_is_missing():
    assert [path.stem for path in NOTEBOOKS] == list(LESSONS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_and_no_claim_is_missing(path: Path):
    cells = read(path).cells
    claims = [claim for cell in cells for claim in CLAIM.findall(cell.source)]
    assert (len(cells), len(claims)) == LESSONS[path.stem][:2]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_stored_notebook_has_no_traces_of_a_run(path: Path):
    notebook = read(path)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata == METADATA
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells(notebook))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_fits_its_cell(path: Path):
    lines = [line for cell in code_cells(read(path)) for line in cell.source.splitlines()]
    assert [line for line in lines if len(line) > LONGEST_LINE] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_index_names_the_notebook_with_its_title_and_minutes(path: Path):
    text = "\n".join(cell.source for cell in read(path).cells)
    number, title = re.findall(r"^# (\d\d) (.+)", text)[0]
    (minutes,) = re.findall(r"^\*\*(\d+) minutes\.\*\*", text, re.MULTILINE)
    assert path.stem.startswith(number)
    assert f"| {number} | [{title}]({path.name}) | {minutes} |" in INDEX


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_minutes_are_enough_to_read_think_and_run(path: Path):
    cells = read(path).cells
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    predictions = sum("predict(" in source for source in code)
    seconds = len(code) * SECONDS_A_CELL + predictions * SECONDS_A_PREDICTION
    minutes = words / WORDS_A_MINUTE + seconds / 60
    [stated] = re.findall(r"^\*\*(\d+) minutes\.\*\*", cells[0].source, re.MULTILINE)
    assert minutes - 0.5 < int(stated) < minutes + 5, minutes


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_and_shows_what_it_says(path: Path, room: Path):
    notebook = read(path)
    if path != FIRST_TASK:  # tests/exercises runs all checks; here one is enough
        leave_out_the_check(notebook)
    execute(notebook, room)
    wait_until_nothing_runs(room)

    lesson, cells = LESSONS[path.stem], code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    errors = [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]
    assert errors == []
    comparisons = [printed(cell) for cell in cells if "compare(" in cell.source]
    happened = [re.findall(r"^What happened: (.*)", text, re.MULTILINE) for text in comparisons]
    assert happened == [[value] for value in lesson.happened.split(" | ")]
    # Nobody has predicted for the learner, and every right answer can be given.
    assert all("You predicted: nothing" in text for text in comparisons)
    asked = [choices_of(cell) for cell in cells if "predict(" in cell.source]
    assert len(asked) == len(happened)
    for choices, [value] in zip(asked, happened, strict=True):
        assert not choices or (len(choices) > 1 and choices.count(value) == 1), (choices, value)
    pictures = [kind for cell in cells for kind in pictures_of(cell)]
    assert len(pictures) == lesson.pictures


def test_a_notebook_that_was_left_in_the_middle_runs_again_in_the_same_kernel(room: Path):
    notebook = read(FIRST_TASK)
    cells = code_cells(notebook)
    notebook.cells = [*deepcopy(beginning(notebook)), *cells]
    execute(notebook, room)
    wait_until_nothing_runs(room)
    happened = re.findall(r"^What happened: (.*)", "".join(map(printed, cells)), re.MULTILINE)
    assert happened == LESSONS[FIRST_TASK.stem].happened.split(" | ")


def test_a_notebook_leaves_the_broker_of_the_settings_alone(room: Path):
    notebook = read(FIRST_TASK)
    notebook.cells = beginning(notebook)
    nowhere = "redis://127.0.0.1:1/0"
    execute(notebook, room, CELERY_BROKER_URL=nowhere, CELERY_RESULT_BACKEND=nowhere)
    wait_until_nothing_runs(room)
    assert "9 SUCCESS" in printed(notebook.cells[-1])


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ("raise RuntimeError", CellExecutionError),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", DeadKernelError),
    ],
    ids=["a cell that fails", "a kernel that is killed"],
)
def test_nothing_is_left_after(end: str, error: type[Exception], room: Path):
    notebook = read(FIRST_TASK)
    notebook.cells = [*beginning(notebook), nbformat.v4.new_code_cell(end)]
    with pytest.raises(error):
        execute(notebook, room)
    wait_until_nothing_runs(room)


@pytest.mark.parametrize(
    ("predicted", "verdict"),
    [("3", "Right."), (3, "Right."), (4, "Not so."), ("", "Next time, predict first.")],
)
def test_a_prediction_is_compared_with_what_happened(predicted: object, verdict: str, capsys):
    compare(predicted, 3)
    assert verdict in capsys.readouterr().out


def test_a_prediction_is_a_widget_and_a_text(capsys):
    prediction = predict(1, 3)
    capsys.readouterr()
    shown = prediction._repr_mimebundle_()
    assert WIDGET in shown
    assert shown["text/plain"].startswith("Your prediction: 1 | 3\n")
    prediction.field.value = "3"  # what a click does
    compare(prediction, 3)
    assert capsys.readouterr().out == "You predicted: 3\nWhat happened: 3\nRight.\n"


def test_a_prediction_may_be_typed(capsys):
    prediction = predict()
    prediction.field.value = " Ada"
    compare(prediction, "ada")
    assert "Right." in capsys.readouterr().out
