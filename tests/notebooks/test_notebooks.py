"""Each notebook runs from top to bottom in a clean kernel, shows what its text says, and leaves nothing."""

import os
import re
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from traitlets.config import Config

from lab.notebook import compare
from settings import ROOT
from tests.waiting import processes_of, wait_for

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
INDEX = (ROOT / "notebooks" / "README.md").read_text()

# What really happens after each prediction, in the order of the notebook.
HAPPENED = {
    "01_first_task": ["PENDING", "PENDING", "sandbox-basic", "1", "here", "before sending"],
    "02_inside_a_message": [
        *("about 1000 bytes", "400000", "KeyError", "February"),
        *("PENDING", "True", "2", "1"),
    ],
    "03_calling_routing_priorities": [
        *("in the worker", "1", "no error", "PENDING", "celery", "2"),
        *("p0", "p2", "4", "advanced 1", "time_limited_task"),
    ],
    "04_states_and_progress": [
        "PROGRESS",
        "1",
        "None",
        "{'rows': 3}",
        "SUCCESS",
        "ValueError",
        "ValueError",
        "100",
        "PENDING",
        "PENDING",
        "AttributeError",
    ],
    "05_schedules": ["yes", "all", "0", "2", "no", "0", "in the worker", "more than once", "10:00"],
    "06_chain_group_chord": ["1", "TypeError", "FAILURE", "finished in 0.6 s", "3", "4", "0", "1"],
    "07_groups_chunks_starmap": [
        *("100", "10", "10", "5", "1", "finished in 1.3 s", "ConnectionError"),
        *("0", "0", "ValueError", "RuntimeError", "6"),
    ],
    "08_chords": ["1", "PENDING", "PENDING", "1", "1", "[4, 16]", "PENDING", "3"],
    "09_retries": ["3", "0.8", "4", "fallback", "SUCCESS", "1", "4"],
    "10_delivery_guarantees": ["never", "2", "1", "2", "2", "FAILURE", "2", "no"],
    "11_time_rate_prefetch": [
        *("stopped after 1 s of 1.5 s", "the caller's", "FAILURE", "finished in 1.5 s"),
        *("2", "4", "2", "100", "wait"),
    ],
    "12_pools_and_concurrency": ["2", "1", "2", "1", "yes", "no", "1", "silence"],
    "13_async_tasks": ["EncodeError", "0", "RuntimeError", "2", "1", "yes", "SUCCESS"],
    "14_mail_and_images": ["3", "1", "RETRY", "1", "2", "3", "refused", "6", "0"],
    "15_import_export_reports": [
        *("483", "0", "5", "ValueError", "'", "FAILURE"),
        *("after the last batch", "0", "about the same"),
    ],
}

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


def beginning(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells up to the one that starts the first worker, and gets a result from it."""
    cells = code_cells(notebook)
    last = next(number for number, cell in enumerate(cells) if "start_worker" in cell.source)
    return cells[: last + 1]


def printed(cell: NotebookNode) -> str:
    """Return what a cell has printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def wait_until_nothing_runs(room: Path) -> None:
    """Wait until the kernel and the sandbox of this folder have ended."""
    wait_for(f"the end of all processes of {room}", lambda: not processes_of(room))


def test_no_notebook_is_missing():
    assert [path.stem for path in NOTEBOOKS] == list(HAPPENED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_stored_notebook_has_no_traces_of_a_run(path: Path):
    notebook = read(path)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata == METADATA
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells(notebook))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_index_names_the_notebook_with_its_title_and_minutes(path: Path):
    text = "\n".join(cell.source for cell in read(path).cells)
    number, title = re.findall(r"^# (\d\d) (.+)", text)[0]
    (minutes,) = re.findall(r"^\*\*(\d+) minutes\.\*\*", text, re.MULTILINE)
    assert path.stem.startswith(number)
    assert f"| {number} | [{title}]({path.name}) | {minutes} |" in INDEX


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_and_shows_what_it_says(path: Path, room: Path):
    notebook = read(path)
    execute(notebook, room)
    wait_until_nothing_runs(room)

    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    errors = [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]
    assert errors == []
    comparisons = [printed(cell) for cell in cells if "compare(" in cell.source]
    happened = [re.findall(r"^What happened: (.*)", text, re.MULTILINE) for text in comparisons]
    assert happened == [[value] for value in HAPPENED[path.stem]]
    # The predictions in the notebooks are common mistakes: nobody is told the answer before the run.
    assert all("Not so." in text for text in comparisons)


def test_a_notebook_that_was_left_in_the_middle_runs_again_in_the_same_kernel(room: Path):
    notebook = read(NOTEBOOKS[0])
    cells = code_cells(notebook)
    notebook.cells = [*deepcopy(beginning(notebook)), *cells]
    execute(notebook, room)
    wait_until_nothing_runs(room)
    happened = re.findall(r"^What happened: (.*)", "".join(map(printed, cells)), re.MULTILINE)
    assert happened == HAPPENED[NOTEBOOKS[0].stem]


def test_a_notebook_leaves_the_broker_of_the_settings_alone(room: Path):
    notebook = read(NOTEBOOKS[0])
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
    notebook = read(NOTEBOOKS[0])
    notebook.cells = [*beginning(notebook), nbformat.v4.new_code_cell(end)]
    with pytest.raises(error):
        execute(notebook, room)
    wait_until_nothing_runs(room)


@pytest.mark.parametrize(("predicted", "verdict"), [("3", "Right."), (3, "Right."), (4, "Not so.")])
def test_a_prediction_is_compared_with_what_happened(predicted: object, verdict: str, capsys):
    compare(predicted, 3)
    assert verdict in capsys.readouterr().out
