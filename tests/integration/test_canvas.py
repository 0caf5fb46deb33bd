"""After a run, the picture of a canvas holds what ran, no more and no less: on canvases of every shape."""

import random
import re
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from celery import chain, chord, group
from kombu.exceptions import EncodeError

from celery_app import app
from lab.canvas import NO_RESULTS, ONCE_FOR_EACH, Step
from lab.diagram import Diagram, diagram
from lab.runs import Run
from lab.sandbox import Sandbox
from lab.states import NEVER_RAN
from lab.timeline import Timeline
from settings import ROOT
from tasks.advanced_tasks import fetch_data, process_item, retry_with_backoff, summarize
from tasks.basic_tasks import add, describe_request, greet
from tests.helper_tasks import note_the_error, note_the_id, send_an_addition, tagged
from tests.waiting import wait_for, wait_until_idle

# Error callbacks on chords: Celery announces a change, and which of the two forms is used matters not here.
pytestmark = pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning")

SEEDS = 60
BLOCK = 15  # canvases that one worker runs


@pytest.fixture
def worker(sandbox: Sandbox) -> Sandbox:
    sandbox.start_worker(["basic", "advanced"], include=["tests.helper_tasks"])
    return sandbox


# --- canvases of every shape ---


class Canvases:
    """Makes canvases by chance, the same ones for the same seed. Each task has a name of its own."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.number = 0

    def canvas(self) -> Any:
        made = self.part(self.chance.choice([1, 2, 2, 3]))
        if self.chance.random() < 0.15 and made.task != "celery.group":
            made.on_error(note_the_id.s())
        return made

    def part(self, depth: int) -> Any:
        kinds = [self.task, self.chained, self.piped, self.group, self.chord, self.starmap]
        return self.chance.choice(kinds if depth else [self.task])(depth)

    def parts(self, depth: int, most: int = 3) -> list[Any]:
        return [self.part(depth - 1) for _ in range(self.chance.randint(1 if most > 2 else 2, most))]

    def name(self, kind: str) -> str:
        self.number += 1
        return f"{'bad' if self.chance.random() < 0.12 else kind}{self.number}"

    def task(self, _: int) -> Any:
        make = tagged.si if self.chance.random() < 0.2 else tagged.s
        signature = make(name=self.name("task"))
        if self.chance.random() < 0.15:
            callback: Any = tagged.s(name=self.name("then"))
            signature.link(
                callback | tagged.s(name=self.name("then")) if self.chance.random() < 0.5 else callback
            )
        if self.chance.random() < 0.15:
            signature.on_error(self.chance.choice([note_the_id, note_the_error]).s())
        return signature

    def chained(self, depth: int) -> Any:
        return chain(*self.parts(depth, most=3), self.part(depth - 1))

    def piped(self, depth: int) -> Any:
        piped = self.part(depth - 1)
        for part in self.parts(depth, most=2):
            piped = piped | part
        return piped

    def group(self, depth: int) -> Any:
        return group(self.parts(depth)) if self.chance.random() < 0.5 else group(*self.parts(depth, most=2))

    def chord(self, depth: int) -> Any:
        return chord(self.parts(depth), self.part(depth - 1))

    def starmap(self, _: int) -> Any:
        return self.chance.choice([tagged.starmap, tagged.map])([(1,), (2,)])


def t(*names: str) -> Any:
    """Return a group of tasks, or one task."""
    tasks = [tagged.s(name=name) for name in names]
    return group(tasks) if len(tasks) > 1 else tasks[0]


def linked(signature: Any, *callbacks: Any) -> Any:
    for callback in callbacks:
        signature.link(callback)
    return signature


SHAPES: dict[str, Any] = {
    "a task, a group, a group": lambda: tagged.s(name="a") | group(t("b"), t("c")) | group(t("d"), t("e")),
    "the same as lists": lambda: t("a") | t("b", "c") | t("d", "e"),
    "three groups": lambda: t("a", "b") | t("c", "d") | t("e", "f"),
    "a chord and a task": lambda: chord([t("a"), t("b")], t("c")) | t("d"),
    "a chord and a chord": lambda: chord([t("a"), t("b")], t("c")) | chord([t("d"), t("e")], t("f")),
    "a chord whose body is a group": lambda: chord([t("a"), t("b")], t("c", "d")),
    "a chord whose body is a chord": lambda: chord([t("a")], chord([t("b"), t("c")], t("d"))),
    "a chord in a chord": lambda: chord([chord([t("a"), t("b")], t("c")), t("d")], t("e")),
    "a group in a header": lambda: chord([group(t("a"), t("b")), t("c")], t("d")),
    "groups in groups": lambda: group(t("a", "b"), group(t("c"), t("d", "e"))),
    "a group of one in a chain": lambda: chain(t("a"), group([t("b")]), t("c")),
    "an empty group in a chain": lambda: chain(t("a"), group([]), t("b")),
    "an empty header": lambda: chord([], t("a")),
    "a failing first step": lambda: t("bad1") | t("b", "c") | t("d"),
    "a failing header": lambda: chord([t("a"), t("bad1")], t("c")) | t("d") | t("e"),
    "a failing body": lambda: chord([t("a"), t("b")], t("bad1")) | t("d"),
    "a failing chord in a chord": lambda: chord([chord([t("a"), t("bad1")], t("c")), t("d")], t("e")),
    "callbacks": lambda: linked(t("a"), t("b"), t("c") | t("d"), t("e", "f")),
    "a callback of a chord": lambda: linked(chord([t("a"), t("b")], t("c")), t("d")),
    "an error callback that is a task": lambda: (t("a") | t("bad1") | t("c")).on_error(note_the_id.s()),
    "one that the worker calls": lambda: (t("a") | t("bad1") | t("c")).on_error(note_the_error.s()),
    "one of a body that never runs": lambda: chord([t("bad1"), t("b")], t("c").on_error(note_the_id.s())),
    "one that only the first message knows": lambda: chord(
        [t("a")], (t("b") | chord([t("bad1"), t("c")], t("d")) | t("e")).on_error(note_the_id.s())
    ),
    "chunks": lambda: tagged.chunks([(1,), (2,), (3,)], 2),
    "a group of chunks and a task": lambda: tagged.chunks([(1,), (2,), (3,)], 2).group() | t("a"),
}


def ran(canvas: Any, sandbox: Sandbox) -> tuple[Any, list[Run], list[Run]]:
    """Send a canvas. Return its result, the runs that were waited for, and all that there were."""
    with Timeline() as timeline:
        result = canvas.delay()
        runs = timeline.wait_for(result)
        wait_until_idle(sandbox, "basic")
    return result, runs, timeline.runs


def steps_that_ran(picture: Diagram) -> list[Step]:
    return [step for step in {id(step): step for step in picture.root.everything()}.values() if step.ids]


def name_of(text: str) -> str:
    """Return the name of a task from its label or from its call: `tagged.s(name='a')`, `note_the_id('…')`."""
    found = re.search(r"name'?[=:] ?'(\w+)'", text) or re.match(r"(\w+)", text)
    assert found
    return found[1]


def check(canvas: Any, sandbox: Sandbox) -> None:
    """Run a canvas, and compare its pictures with the evidence."""
    before = diagram(canvas)
    result, runs, every = ran(canvas, sandbox)
    assert {run.task_id for run in runs} == {run.task_id for run in every}
    calls = {run.task_id: run.call for run in reversed(every)}  # of the first run
    picture = diagram(canvas, result, runs)
    drawn = Counter(task_id for step in steps_that_ran(picture) for task_id in step.ids)
    assert drawn == Counter(list(calls))
    check_states(picture, calls)
    check_never_ran(picture, calls)
    if not any(step.note == ONCE_FOR_EACH for step in before.root.everything()):
        assert labels(before) == labels(picture)
    try:  # by the result alone: right, or refused
        check_states(diagram(canvas, result), calls)
    except ValueError as error:
        assert "runs = timeline.wait_for(result)" in str(error)  # noqa: PT017


def labels(picture: Diagram) -> list[str]:
    return [step.label for step in picture.root.everything()]


def check_states(picture: Diagram, calls: dict[str, str]) -> None:
    """Each step shows the state of its own task; of several, how many have which."""
    for step in steps_that_ran(picture):
        states = Counter(app.AsyncResult(task_id).state for task_id in step.ids)
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        assert step.state == (counts if len(step.ids) > 1 else next(iter(states)))
        for task_id in set(step.ids) & set(calls):
            assert name_of(calls[task_id]) in (name_of(step.label), "starmap", "map")


def check_never_ran(picture: Diagram, calls: dict[str, str]) -> None:
    names = {name_of(call) for call in calls.values()}
    for step in picture.root.tasks():
        assert step.ids or (step.state.endswith(NEVER_RAN) and name_of(step.label) not in names)


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_the_picture_of_any_canvas_holds_all_that_ran(worker: Sandbox, first: int) -> None:
    for seed in range(first, first + BLOCK):
        check(Canvases(seed).canvas(), worker)


def test_the_picture_of_each_known_shape_holds_all_that_ran(worker: Sandbox) -> None:
    for shape in SHAPES.values():
        check(shape(), worker)


# --- what is not in the canvas, or not as it was written ---


def text_of(canvas: Any, sandbox: Sandbox) -> list[str]:
    """Run a canvas, and return its picture as lines of text."""
    result, runs, _ = ran(canvas, sandbox)
    return diagram(canvas, result, runs).text().splitlines()


def test_waiting_for_a_chord_and_a_task_waits_for_all_four_tasks(worker: Sandbox) -> None:
    _, runs, _ = ran(SHAPES["a chord and a task"](), worker)
    assert [name_of(run.call) for run in runs][2:] == ["c", "d"]
    assert len(runs) == 4


def test_where_workers_tell_nothing_of_what_they_send_the_last_task_is_waited_for(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_CONF", '{"task_send_sent_event": false}')
    sandbox.start_worker(["basic"], include=["tests.helper_tasks"])
    with Timeline() as timeline:
        result = (t("a") | t("b").set(queue="advanced")).delay()
        wait_for("the end of the first", lambda: [run for run in timeline.runs if run.ended])
        with pytest.raises(TimeoutError, match="No event of it was seen"):
            timeline.wait_for(result, seconds=0.2)
        sandbox.start_worker(["advanced"], include=["tests.helper_tasks"])
        assert [name_of(run.call) for run in timeline.wait_for(result)] == ["a", "b"]


def test_a_task_that_never_ran_says_so(worker: Sandbox) -> None:
    assert text_of(t("a") | t("bad1") | t("c"), worker) == [
        "chain",
        "├── tagged.s(name='a')  [SUCCESS]",
        "├── tagged.s(name='bad1')  [FAILURE]",
        "└── tagged.s(name='c')  [FAILURE, never ran]",
    ]


def test_a_callback_has_its_own_state(worker: Sandbox) -> None:
    assert text_of(linked(t("bad1").on_error(note_the_id.s()), t("b")), worker) == [
        "tagged.s(name='bad1')  [FAILURE]",
        "├── then: tagged.s(name='b')",
        "└── on error: note_the_id.s()  [SUCCESS]",
    ]


def test_an_error_callback_that_two_tasks_have_counts_its_runs(worker: Sandbox) -> None:
    handler = note_the_id.s()
    lines = text_of(group(t("bad1").on_error(handler), t("bad2").on_error(handler)), worker)
    assert [line.partition("─ ")[2] for line in lines if "on error" in line] == [
        "on error: note_the_id.s()  [2 SUCCESS]"
    ] * 2


def test_what_a_task_sends_itself_is_shown_too(worker: Sandbox) -> None:
    assert text_of(send_an_addition.s(), worker) == [
        "send_an_addition.s()  [SUCCESS]",
        "└── sends: add(1, 2)  [SUCCESS]",
    ]


def test_a_task_that_keeps_no_result_has_the_state_that_its_worker_tells(worker: Sandbox) -> None:
    assert text_of(t("a").set(ignore_result=True), worker) == ["tagged.s(name='a')  [succeeded]"]


def test_chunks_in_a_chain_pass_on_no_results_and_the_picture_says_so(worker: Sandbox) -> None:
    canvas = add.chunks([(1, 1), (2, 2), (3, 3)], 2) | t("b")
    assert NO_RESULTS in diagram(canvas).mermaid
    chain, parts, first, second, last = text_of(canvas, worker)
    assert (chain, parts) == ("chain", f"├── add.chunks(items: 3, 2 each) ({NO_RESULTS})  [FAILURE]")
    for line in (first, second):
        assert re.search(r"─ sends: starmap\(.*\)  \[SUCCESS\]$", line)
    assert last == "└── tagged.s(name='b')  [FAILURE, never ran]"
    with pytest.raises(EncodeError, match="GroupResult is not JSON"):
        canvas.delay().get(timeout=20)
    whole = add.chunks([(1, 1), (2, 2), (3, 3)], 2).group() | tagged.s(name="b")
    assert whole.delay().get(timeout=20) == "b"


def test_a_step_after_a_chord_with_a_group_as_its_body_runs_once_for_each_member(worker: Sandbox) -> None:
    canvas = chord([t("a")], t("b", "c")) | chain(t("d"), t("e"))
    assert ONCE_FOR_EACH in diagram(canvas).text()
    _, runs, _ = ran(canvas, worker)
    assert sum(name_of(run.call) == "d" for run in runs) == 2


def test_members_of_a_group_in_a_header_run_in_the_reverse_order(worker: Sandbox) -> None:
    canvas = chord([group(t("a"), t("b")), t("c")], t("d"))
    result, runs, _ = ran(canvas, worker)
    sent = [name_of(run.call) for run in sorted(runs, key=lambda run: run.sent or 0)]
    assert sent == ["b", "a", "c", "d"]
    assert [name_of(task.label) for task in diagram(canvas, result).root.tasks()] == sent


# --- by the result alone ---


@pytest.mark.parametrize(
    "canvas",
    [
        add.s(1, 2),
        fetch_data.s("north") | process_item.s(),
        group(add.s(n, n) for n in range(20)),
        chord([fetch_data.s(s) | process_item.s() for s in ("north", "south")], summarize.s()),
        chain(add.s(1, 2), group(add.s(3), add.s(4) | add.s(5)), describe_request.si()),
        group(chord([add.s(1, 1), add.s(2, 2)], describe_request.si()), add.s(1, 1) | add.s(2)),
        chord([add.s(1, 1)], describe_request.si()),
        retry_with_backoff.s(failures=1, base_seconds=0.05),
    ],
    ids=repr,
)
def test_after_a_run_each_task_of_the_same_picture_has_its_state(worker: Sandbox, canvas: Any) -> None:
    before = diagram(canvas)
    result, _, _ = ran(canvas, worker)
    after = diagram(canvas, result)
    assert {task.state for task in after.root.tasks()} == {"SUCCESS"}
    assert after.mermaid.count('"]:::SUCCESS') + ("more" in after.mermaid) == after.mermaid.count("<br>")
    assert after.text().replace("  [SUCCESS]", "").replace("  [13 SUCCESS]", "") == before.text()


def test_a_result_of_another_canvas_is_refused(worker: Sandbox) -> None:
    one, two = add.s(1, 2), add.s(1, 2) | add.s(3)
    with pytest.raises(ValueError, match=r"has fewer tasks than the canvas. Send it inside a timeline"):
        diagram(two, ran(one, worker)[0])
    with pytest.raises(ValueError, match="has more tasks than the canvas"):
        diagram(one, ran(two, worker)[0])
    with pytest.raises(ValueError, match=r"has tasks.basic_tasks.add instead of greet.s"):
        diagram(greet.s("Ada"), ran(one, worker)[0])


def test_learn_diagram_runs_a_typed_canvas(worker: Sandbox) -> None:
    expression = "add.s(1, 2) | group(add.s(3), add.s(4)) | group(add.si(5, 5), add.si(6, 6))"
    command = [sys.executable, "-m", "lab.cli", "diagram", "--run", expression]
    program = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert program.returncode == 0, program.stderr
    assert program.stdout.count("[SUCCESS]") == 5
    assert "Runs 5, tasks 5: 5 succeeded." in program.stdout
    assert 'n1["add.s(1, 2)<br>SUCCESS"]:::SUCCESS' in program.stdout
