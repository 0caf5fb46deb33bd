"""A test that does not end. It is not collected: `test_killed_run.py` runs it, and kills it."""

import os
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from lab.sandbox import Sandbox
from tasks.basic_tasks import task_with_progress
from tests.waiting import wait_for

IGNORES_ALL_BUT_KILL = "trap '' INT TERM HUP; while true; do sleep 1; done"


@pytest.mark.timeout(0)
@pytest.mark.parametrize("number", [1, 2])
def test_that_does_not_end(sandbox: Sandbox, number: int) -> None:
    """Have a worker with a task, a sandbox that stays, and a program in a session of its own."""
    room = Path(tempfile.gettempdir())
    sandbox.start_worker(["basic"])
    result = task_with_progress.delay(total=1000, seconds_per_item=1)
    wait_for("the task runs", lambda: result.state not in ("PENDING", "STARTED"))
    result.forget()
    stays = Sandbox(folder=room / "stays")
    stays.open()
    stays.connection.pin()
    subprocess.Popen(["sh", "-c", IGNORES_ALL_BUT_KILL], start_new_session=True)
    tempfile.mkdtemp(prefix="learn-")
    (Path(os.environ["KILLED_RUN"]) / f"{os.getpid()}.up").write_text(str(room))
    threading.Event().wait()
