"""The claims of notebook 06: signatures, chains, and where an error goes."""

import json
from pathlib import Path
from typing import Any

import pytest
from celery import Signature, chain, chord, group

from celery_app import app
from lab.diagram import lineage
from lab.evidence import log_lines, received, states, unacknowledged, waiting
from lab.sandbox import Sandbox
from lab.xray import xray
from services.failures import failures_of
from tasks.advanced_tasks import mean_temperature, monitored_task, report_failure
from tasks.basic_tasks import add, greet, multiply, simple_calculation
from tests.helper_tasks import mark_and_wait, process_id
from tests.waiting import lines, wait_for
from tests.workers import start


def send(flow: Any, *args: object) -> list[Any]:
    """Send a chain. Return the results of its steps, the first one first."""
    return list(lineage(flow.delay(*args)))


def reports(steps: list[Any]) -> list[int]:
    """Return for each step how often its failure was reported."""
    return [len(failures_of(step.id)) for step in steps]


def wait_for_state(state: str, step: Any) -> None:
    """Wait until a step has this state, and until the task that has set it has ended.

    A task calls its error callbacks after it has stored the failure, and before it is acknowledged.
    """
    wait_for(state, lambda: step.state == state)
    wait_for("the acknowledgement", lambda: not unacknowledged())


def failing() -> Signature:
    """Return a step that takes a number and fails."""
    return simple_calculation.s(10, "power")


def test_later_arguments_come_in_front(sandbox: Sandbox) -> None:
    """06.1 Arguments that you give to a signature later are put in front of those that it has."""
    result = simple_calculation.s(10, "subtract").delay(3)
    assert xray("basic").messages[0].args == (3, 10, "subtract")
    start(sandbox)
    assert result.get(timeout=20) == 3 - 10


def test_set_and_clone(sandbox: Sandbox) -> None:
    """06.2 `set()` changes the signature itself, and `clone()` makes a copy."""
    usual = greet.s("Ada")
    usual.clone().set(queue="advanced")
    usual.delay()
    assert [waiting("basic"), waiting("advanced")] == [1, 0]
    usual.set(queue="advanced")
    usual.delay()
    assert [waiting("basic"), waiting("advanced")] == [1, 1]


def test_a_signature_as_json(sandbox: Sandbox) -> None:
    """06.3 A signature, a chain, a group or a chord that was written as JSON and read again can still be
    sent.
    """
    start(sandbox)
    pair = [add.s(1), add.s(2)]
    for canvas, expected in (
        (multiply.s(3), 6),
        (multiply.s(3) | add.s(1), 7),
        (group(pair), [3, 4]),
        (chord(pair, add.starmap([(1, 1)]).set(immutable=True)), [2]),
        (multiply.s(3) | group(pair) | greet.si("Ada"), "Hello, Ada!"),
    ):
        again: Any = app.signature(json.loads(json.dumps(canvas)))
        assert again.delay(2).get(timeout=20) == expected


def test_one_message_at_a_time(sandbox: Sandbox) -> None:
    """06.4 A chain is sent as one message, which carries the later steps; the worker that finishes a step
    sends the next one.
    """
    # The first step tells which process runs it.
    steps = send(process_id.s().set(queue="advanced") | add.s(0) | add.s(0))
    [first] = xray().messages
    assert [step["task"] for step in first.embed["chain"]] == [add.name, add.name]
    start(sandbox, "advanced")
    [second] = wait_for("the second message", lambda: xray("basic").messages)
    pid = steps[0].get(timeout=20)
    assert second.headers["origin"].startswith(f"gen{pid}@")
    assert not first.headers["origin"].startswith(f"gen{pid}@")
    assert [step["task"] for step in second.embed["chain"]] == [add.name]
    start(sandbox, "basic")
    assert steps[-1].get(timeout=20) == pid


@pytest.mark.parametrize(
    "between", [[], [add.s(0)], [group(add.s(0), add.s(0)), greet.si("Ada"), add.si(180, 0)]], ids=len
)
def test_a_chain_that_is_sent_twice(sandbox: Sandbox, between: list[Any]) -> None:
    """06.5 A chain whose last step is a task keeps the id of this step: when it is sent twice, the second
    `get()` returns the first result.
    """
    worker = start(sandbox)
    to_fahrenheit: Any = chain(multiply.s(1.8), *between, add.s(32))
    first = to_fahrenheit.delay(100)
    assert first.get(timeout=20) == 212
    second = to_fahrenheit.delay(0)
    assert second.get(timeout=20) == 212
    log_lines(worker, second.id, times=2)  # both have run
    assert first.id == second.id
    step: Any = next(iter(lineage(second)))
    assert step.get(timeout=20) == 0
    assert app.AsyncResult(second.id).get(timeout=20) == 212
    # A signature of one task has a new id each time, and so has a chain that ends in a group.
    other: Any
    for other in (add.s(1), add.s(1) | group(add.s(1), add.s(2))):
        results: list[Any] = [other.delay(number) for number in (1, 5)]
        assert results[0].id != results[1].id
        assert results[0].get(timeout=20) != results[1].get(timeout=20)


def test_the_parents_of_a_result(sandbox: Sandbox) -> None:
    """06.6 A result that is made from the id of the last step alone has no `parent`."""
    start(sandbox)
    steps = send(add.s(1, 2) | multiply.s(3) | add.s(4))
    assert [step.get(timeout=20) for step in steps] == [3, 9, 13]
    again = app.AsyncResult(steps[-1].id)
    assert (again.get(timeout=20), again.parent) == (13, None)
    # But the stored result says which step came before.
    assert app.backend.get_task_meta(again.id)["parent_id"] == steps[1].id


def test_what_is_passed_on(sandbox: Sandbox) -> None:
    """06.7 A step gets the result of the step before as one argument, in front of its own, even if it is a
    list.
    """
    start(sandbox)
    assert send(add.s(1, 2) | simple_calculation.s(10, "subtract"))[-1].get(timeout=20) == 3 - 10
    pair = add.starmap([(1, 1), (2, 2)])
    assert send(pair | monitored_task.s())[-1].get(timeout=20)["squares"] == [4, 16]
    with pytest.raises(ValueError, match=r"a=\[2, 4\]"):
        send(pair | add.s(1))[-1].get(timeout=20)


def test_an_immutable_step(sandbox: Sandbox) -> None:
    """06.8 An immutable step (`si`) gets nothing from the step before."""
    start(sandbox)
    steps = send(add.s(1, 2) | add.si(10, 20) | multiply.s(2))
    assert [step.get(timeout=20) for step in steps] == [3, 30, 60]


def test_a_step_with_too_many_arguments(sandbox: Sandbox) -> None:
    """06.9 If the number of arguments does not fit the next step, that step is never sent: the step before
    it fails with TypeError, and its result is lost.
    """
    worker = start(sandbox)
    before, after = steps = send(add.s(1, 2) | greet.s("Ada"))
    with pytest.raises(TypeError, match=r"greet\(\) takes 1"):
        after.get(timeout=20)
    wait_for_state("FAILURE", after)
    assert isinstance(before.get(timeout=20, propagate=False), TypeError)
    assert states(steps) == ["FAILURE", "FAILURE"]
    assert received(worker, after.id) == 0


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_steps_after_a_failed_one(sandbox: Sandbox, place: int) -> None:
    """06.10 When a step fails, the later steps never run, and get the state FAILURE with its error."""
    worker = start(sandbox)
    first, second, third = (failing() if number == place else add.s(number) for number in range(3))
    steps = send(first | second | third | greet.si("Ada"), 1)
    wait_for_state("FAILURE", steps[-1])
    assert states(steps) == ["SUCCESS"] * place + ["FAILURE"] * (4 - place)
    errors = [step.get(timeout=20, propagate=False) for step in steps[place:]]
    assert {(type(error), str(error)) for error in errors} == {(ValueError, str(errors[0]))}
    assert [received(worker, step.id) for step in steps] == [int(number <= place) for number in range(4)]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_error_callback_on_a_chain(sandbox: Sandbox, place: int) -> None:
    """06.11 An error callback on a chain holds for each step, and is called once: for the step that has
    failed.
    """
    start(sandbox)
    first, second, third = (failing() if number == place else add.s(number) for number in range(3))
    flow: Any = first | second | third
    steps = send(flow.on_error(report_failure.s()), 1)
    wait_for_state("FAILURE", steps[-1])
    assert reports(steps) == [int(number == place) for number in range(3)]


def test_an_error_callback_on_one_step(sandbox: Sandbox) -> None:
    """06.12 An error callback on one step is not called when a step before it fails."""
    start(sandbox)
    callback = report_failure.s()
    for flow, expected in (
        (add.s(1, 2) | failing() | greet.si("Ada").on_error(callback), [0, 0, 0]),
        (add.s(1, 2) | failing().on_error(callback) | greet.si("Ada"), [0, 1, 0]),
    ):
        steps = send(flow)
        wait_for_state("FAILURE", steps[-1])
        assert reports(steps) == expected


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_the_steps_after_a_revoked_one(sandbox: Sandbox, how: str) -> None:
    """06.13 When a step is revoked or has expired, the later steps stay PENDING, and no error callback is
    called.
    """
    worker = start(sandbox, "basic")
    second = multiply.s(1.8).set(expires=-1) if how == "expired" else multiply.s(1.8)
    flow: Any = mean_temperature.s("north") | second | add.s(32)
    steps = send(flow.on_error(report_failure.s()))
    if how == "revoked":
        steps[1].revoke()
        told = f"Tasks flagged as revoked: {steps[1].id}"
        wait_for("the worker knows", lambda: told in worker.log.read_text())
    start(sandbox, "advanced")
    wait_for_state("REVOKED", steps[1])
    add.delay(1, 1).get(timeout=20)
    assert states(steps) == ["SUCCESS", "REVOKED", "PENDING"]
    assert reports(steps) == [0, 0, 0]


def test_a_group_in_a_chain(sandbox: Sandbox, tmp_path: Path) -> None:
    """06.14 In a chain, a group of two or more with steps after it becomes the header of a chord, and these
    steps become its body.
    """
    start(sandbox)
    runs, release = tmp_path / "runs", tmp_path / "release"
    members = group(add.s(10), mark_and_wait.si(str(runs), str(release)))
    flow: Any = add.s(1, 2) | members | greet.si("Ada") | greet.si("Bob")
    chord = flow.tasks[-1]
    assert chord.task == "celery.chord"
    assert [member.task for member in chord.tasks] == [add.name, mark_and_wait.name]
    assert [step.task for step in chord.body.tasks] == [greet.name, greet.name]

    _, header, body, last = send(flow)
    wait_for("one member runs", lambda: lines(runs))
    assert header.results[0].get(timeout=20) == 3 + 10
    add.delay(1, 1).get(timeout=20)
    assert body.state == "PENDING"  # it waits for all members
    release.touch()
    assert last.get(timeout=20) == "Hello, Bob!"


def test_a_failure_before_a_group(sandbox: Sandbox) -> None:
    """06.15 When a step before a group fails, the members of the group stay PENDING, and the steps after it
    get the state FAILURE.
    """
    start(sandbox)
    members = group(add.s(10), add.s(20))
    first, header, *after = send(add.s(1, "two") | members | monitored_task.s() | greet.si("Ada"))
    wait_for_state("FAILURE", after[-1])
    assert states([first, *header.results, *after]) == [
        *("FAILURE", "PENDING", "PENDING", "FAILURE", "FAILURE")
    ]
