"""Whatever a learner's file does, a check ends with a verdict in time, and leaves nothing running."""

from pathlib import Path

import pytest

from lab.workshop import verdicts
from lab.workshop.forks import children
from tests.exercises.conftest import Check, Server
from tests.waiting import wait_for

EXERCISE = "basics/add_tax"
RIGHT = "    return round(pence * (100 + percent) / 100)\n"


def task(body: str, before: str = "") -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    imports = "import os, sys, threading, time\nfrom celery_app import app\n"
    return f"{imports}{before}\n\n@app.task\ndef with_tax(pence, percent):\n{lines}"


FILES: dict[str, tuple[str | bytes, str, str]] = {
    "an endless import": ("while True: pass", verdicts.TIMED_OUT, "did not return within 5 seconds"),
    "an endless task": (task("while True: pass"), verdicts.TIMED_OUT, "goes round in a loop"),
    "a task that sleeps": (task("time.sleep(1000)"), verdicts.TIMED_OUT, "it had begun 1 times"),
    "sys.exit when imported": ("import sys\nsys.exit(3)", verdicts.NO_START, "SystemExit: 3"),
    "os._exit when imported": ("import os\nos._exit(3)", verdicts.WRONG, "ends its process"),
    "sys.exit in the task": (task("sys.exit(3)"), verdicts.WRONG, "the task ends the process"),
    "os._exit in the task": (task("os._exit(3)"), verdicts.WRONG, "the task ends the process"),
    "an error when imported": (
        "import celery\n1 / 0",
        verdicts.NO_START,
        "line 2, in <module>\nZeroDivisionError",
    ),
    "a module that is missing": ("import nosuchmodule", verdicts.NO_START, "No module named 'nosuchmodule'"),
    "a syntax error": ("def with_tax(:\n", verdicts.NO_START, "line 1: SyntaxError"),
    "not text": (b"\xff\xfe\x00\x01", verdicts.NO_START, "SyntaxError"),
    "a null byte": ("x = 1\0", verdicts.NO_START, "null bytes"),
    "nothing": ("", verdicts.WRONG, "your file has no task"),
    "commented out": ("# def with_tax(pence, percent): ...", verdicts.WRONG, "your file has no task"),
    "gigabytes when imported": ("x = bytearray(10**10)", verdicts.OUT_OF_MEMORY, "MemoryError"),
    "gigabytes in the task": (task("return len(bytearray(10**10))"), verdicts.OUT_OF_MEMORY, "more memory"),
    "a hard-coded answer": (task("return 110"), verdicts.WRONG, "the price plus the tax"),
    "the wrong arguments": (
        "from celery_app import app\n@app.task\ndef with_tax(): return 1",
        verdicts.WRONG,
        "takes 0 positional arguments",
    ),
    "no JSON": (task("return {1, object()}"), verdicts.WRONG, "the task failed"),
    "the check imported": (
        task("return 1", "import lab.workshop.room"),
        verdicts.WRONG,
        "must be your own code",
    ),
    "the solution read": (
        task("return open('.author/solution.py')"),
        verdicts.WRONG,
        "must be your own code",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_gets_a_verdict(name: str, check: Check, tmp_path: Path) -> None:
    text, kind, said = FILES[name]
    file = tmp_path / "tasks.py"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    verdict = check(EXERCISE, file)
    assert (verdict.kind, said in verdict.text(1000)) == (kind, True), verdict.text()
    assert "Traceback" not in verdict.text()
    assert "lab/workshop" not in verdict.text(1000).replace("lab/workshop/services.py", "")


def test_a_file_that_is_not_there(check: Check, tmp_path: Path) -> None:
    verdict = check(EXERCISE, tmp_path / "nowhere.py")
    assert verdict.kind == verdicts.FAULT
    assert "No such file" in verdict.text()


def test_a_flood_of_prints_is_shown_in_part(check: Check, tmp_path: Path) -> None:
    file = tmp_path / "tasks.py"
    file.write_text(task("for n in range(200_000): print('line', n, 'x' * 100)\n" + RIGHT.strip()))
    verdict = check(EXERCISE, file)
    assert verdict.passed, verdict.text()
    assert verdict.printed.startswith("line 0 x")
    assert len(verdict.printed) <= verdicts.PRINTED_LETTERS


LEFT_BEHIND = {
    "a thread": "threading.Thread(target=time.sleep, args=(1000,)).start()\n",
    "a child": "os.fork() or time.sleep(1000)\n",
    "a child in a session of its own": (
        "if not os.fork():\n    os.setsid()\n    os.fork() or time.sleep(1000)\n    os._exit(0)\n"
    ),
    "a program": "import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)\n",
}


@pytest.mark.parametrize("name", LEFT_BEHIND)
@pytest.mark.parametrize("place", ["task", "import"])
def test_nothing_of_a_file_goes_on_after_its_check(
    name: str, place: str, server: Server, tmp_path: Path
) -> None:
    mark = tmp_path / "pids"
    note = f"open({str(mark)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
    code = note + LEFT_BEHIND[name] + note
    file = tmp_path / "tasks.py"
    file.write_text(task(code + RIGHT.strip()) if place == "task" else task(RIGHT.strip(), code))
    verdict = server.check(EXERCISE, file)
    assert verdict.kind in (verdicts.PASSED, verdicts.WRONG, verdicts.TIMED_OUT), verdict.text()
    good = server.check(EXERCISE, SOLUTION)  # what is left is ended before the next check
    assert good.passed, good.text()
    pids = {int(pid) for pid in mark.read_text().split()}
    wait_for("all have ended", lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    alive = [pid for pid, state in children(server.process.pid).items() if state != "Z"]
    assert len(alive) <= MOST_CHILDREN


SOLUTION = Path(__file__).parents[2] / "exercises" / "01_basics" / "add_tax" / ".author" / "solution.py"
MOST_CHILDREN = 2  # its supervisor, and the process of the next check
