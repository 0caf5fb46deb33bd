"""The claims of notebook 08: chords, their counter, their failures."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Signature, chord, group
from celery.exceptions import ChordError
from celery.result import AsyncResult

from celery_app import app
from lab.evidence import received, states, unacknowledged, waiting
from lab.sandbox import Sandbox
from lab.timeline import Timeline
from lab.wrong_tasks import report_failure_by_id
from services.failures import failures_of
from settings import RESULT_DATABASE
from tasks.advanced_tasks import mean_temperature, monitored_task, report_failure
from tasks.basic_tasks import add, greet
from tests.helper_tasks import mark_and_wait
from tests.waiting import lines, wait_for
from tests.workers import start


def send(flow: Signature) -> tuple[AsyncResult, Any]:
    """Send a chord. Return the result of its body, and those of its header."""
    result = flow.delay()
    return result, result.parent


@pytest.mark.parametrize("last", [0, 1, 2])
def test_when_the_body_is_sent(sandbox: Sandbox, last: int) -> None:
    """08.1 The body of a chord is sent when the last header member has ended, and not before."""
    header = [add.s(1, 1), add.s(2, 2), add.s(3, 3)]
    header[last].set(queue="realworld")
    result, members = send(chord(header, monitored_task.s()))
    start(sandbox, "basic")
    wait_for("two members", lambda: members.completed_count() == 2)
    assert waiting("advanced") == unacknowledged("advanced") == 0
    start(sandbox, "realworld")
    wait_for("the body is sent", lambda: waiting("advanced") == 1)
    assert members.completed_count() == 3
    start(sandbox, "advanced")
    assert result.get(timeout=20)["squares"] == [4, 16, 36]


def test_the_counter_expires(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """08.2 The counter of a chord expires after `result_expires`, or `result_chord_expires` if that is set,
    and each member that ends renews it: if none ends for so long, the body never runs."""
    results = sandbox.broker.client(RESULT_DATABASE)

    _, members = send(chord([add.s(1, 1).set(queue="advanced"), add.s(2, 2)], monitored_task.s()))
    renewed = f"celery-taskset-meta-{members.id}.s"
    results.expire(renewed, 60)
    first = start(sandbox, "advanced", options=["result_chord_expires=500"])
    wait_for("one member's end renews it", lambda: results.ttl(renewed) > 60)
    assert results.ttl(renewed) <= 500
    wait_for("the acknowledgement", lambda: not unacknowledged())
    first.kill()

    usual, usual_members = send(chord([add.s(1, 1), add.s(2, 2)], monitored_task.s()))
    assert results.ttl(f"celery-taskset-meta-{usual_members.id}.s") in (3599, app.conf.result_expires)

    # The backend of this process has read the setting when it was made; its own value stands for it.
    monkeypatch.setattr(app.backend, "_chord_expires", 1)
    late, late_members = send(chord([add.s(1, 1), add.s(2, 2)], monitored_task.s()))
    counter = f"celery-taskset-meta-{late_members.id}.s"
    assert 0 < results.pttl(counter) <= 1000
    wait_for("the counter has expired", lambda: not results.exists(counter))

    worker = start(sandbox)
    assert usual.get(timeout=20)["squares"] == [4, 16]
    wait_for("all members", lambda: late_members.successful())
    monitored_task.delay([1]).get(timeout=20)
    wait_for("all is done", lambda: not unacknowledged())
    assert (late.state, received(worker, late.id)) == ("PENDING", 0)


def test_when_a_chord_fails(sandbox: Sandbox, tmp_path: Path) -> None:
    """08.3 A chord fails when its whole header has ended, not at the first failure."""
    start(sandbox)
    runs, release = tmp_path / "runs", tmp_path / "release"
    header = [mark_and_wait.s(str(runs), str(release)), add.s(1, "one")]
    result, members = send(chord(header, monitored_task.s()))
    wait_for("one fails", lambda: members[1].state == "FAILURE")
    wait_for("the other one runs", lambda: lines(runs))
    add.delay(1, 1).get(timeout=20)
    assert result.state == "PENDING"
    release.touch()
    assert isinstance(result.get(timeout=20, propagate=False), ChordError)


@pytest.mark.parametrize("place", [0, 1])
def test_the_body_of_a_failed_header(sandbox: Sandbox, place: int) -> None:
    """08.4 If a header member fails, the body never runs: it gets the state FAILURE, with an error that names
    the member."""
    worker = start(sandbox)
    header = [add.s(1, "one" if number == place else 1) for number in range(2)]
    result, members = send(chord(header, monitored_task.s()))
    error = result.get(timeout=20, propagate=False)
    monitored_task.delay([1]).get(timeout=20)
    assert (result.state, received(worker, result.id)) == ("FAILURE", 0)
    assert f"Dependency {members[place].id} raised ValueError" in str(error)


@pytest.mark.parametrize("failing", [1, 2, 4])
def test_one_call_of_the_error_callback(sandbox: Sandbox, failing: int) -> None:
    """08.5 The error callback of a chord's body is called once, however many members fail."""
    start(sandbox)
    header = [add.s(1, "one" if number < failing else 1) for number in range(4)]
    result, members = send(chord(header, monitored_task.s().on_error(report_failure.s())))
    result.get(timeout=20, propagate=False)
    assert states(members).count("FAILURE") == failing
    assert len(failures_of(result.id)) == 1


def test_two_forms_of_error_callback(sandbox: Sandbox) -> None:
    """08.6 An error callback with the arguments (request, exc, traceback) is called at once, in the worker
    that notices the failure. One with a single argument is sent as a task."""
    start(sandbox, "advanced")
    body = monitored_task.s().on_error(report_failure.s()).on_error(report_failure_by_id.s())
    result, _ = send(chord([mean_temperature.s("atlantis"), mean_temperature.s("north")], body))
    result.get(timeout=20, propagate=False)
    [line] = failures_of(result.id)
    assert "no such station" in line
    assert waiting("basic") == 1
    start(sandbox, "basic")
    wait_for("the task has run", lambda: failures_of(result.id) == [line, "the state is FAILURE"])


def test_a_header_that_ignores_its_results(sandbox: Sandbox) -> None:
    """08.7 On Redis the header of a chord may ignore its results: the body gets them all the same."""
    start(sandbox)
    ignore: dict[str, Any] = {"ignore_result": True}
    header = [add.s(1, 1).set(**ignore), add.s(2, 2).set(**ignore)]
    result, members = send(chord(header, monitored_task.s()))
    assert result.get(timeout=20)["squares"] == [4, 16]
    assert states(members) == ["PENDING", "PENDING"]


def squares(first: int, second: int | str) -> Signature:
    """Return a chord of two additions. With a word for a number, its header fails."""
    return chord([add.s(first, first), add.s(second, 2)], monitored_task.s().on_error(report_failure.s()))


@pytest.mark.parametrize(
    "member",
    [
        lambda: squares(1, "two"),
        lambda: squares(1, "two") | greet.si("Ada"),
        lambda: add.s(1, 1) | group(add.s(1), add.s("two")) | monitored_task.s(),
        lambda: chord([add.s(1, 1), add.s(2, "two")], group(greet.si("Ada"), greet.si("Bob"))),
        lambda: chord([squares(1, "two")], greet.si("Ada")),
    ],
    ids=["chord", "chord and task", "group in a chain", "group as body", "chord in it"],
)
@pytest.mark.parametrize("others", [[], [squares(3, 4)], [add.s(1, 1)]], ids=["alone", "chord", "task"])
def test_a_failed_inner_chord(sandbox: Sandbox, member: Any, others: list[Signature]) -> None:
    """08.8 If the header of an inner chord fails, the outer body neither runs nor fails: it stays PENDING,
    and its error callback is not called."""
    worker = start(sandbox)
    flow = chord([member(), *others], greet.si("all").on_error(report_failure.s()))
    with Timeline() as timeline:
        result = flow.delay()
        runs = timeline.wait_for(result)
    assert "failed" in [run.outcome for run in runs]
    wait_for("all is done", lambda: not unacknowledged())
    assert waiting() == 0
    assert (result.state, failures_of(result.id)) == ("PENDING", [])
    assert received(worker, result.id) == 0


def test_the_callback_of_a_failed_inner_body_is_called(sandbox: Sandbox) -> None:
    """The remedy for claim 08.8: an error callback on each inner body."""
    start(sandbox)
    _, members = send(chord([squares(1, 2), squares(1, "two")], greet.si("all")))
    wait_for("both inner bodies", lambda: all(body.ready() for body in members))
    assert len(failures_of(members[1].id)) == 1


def test_a_failure_that_arrives(sandbox: Sandbox) -> None:
    """An exception to claim 08.8: here the member goes on after the inner body, and the outer body fails."""
    start(sandbox)
    member: Any = add.s(1, 1) | group(add.s(1), add.s("two")) | monitored_task.s() | greet.si("Ada")
    result, _ = send(chord([member, add.s(1, 1)], greet.si("all")))
    assert isinstance(result.get(timeout=20, propagate=False), ChordError)


def numbers(*values: int) -> list[Signature]:
    """Return tasks that give these numbers, with ids in an order of chance."""
    return [add.s(value, 0).set(task_id=str(uuid4())) for value in values]


@pytest.mark.parametrize(
    ("header", "order"),
    [
        (lambda: [group(numbers(1, 2)), *numbers(3)], [2, 1, 3]),
        (lambda: [*numbers(1), group(numbers(2, 3, 4)), *numbers(5)], [1, 4, 3, 2, 5]),
        (lambda: [group(*numbers(1, 2)), group(*numbers(3, 4))], [2, 1, 4, 3]),
        (lambda: [group(*numbers(1), group(numbers(2, 3))), *numbers(4)], [3, 2, 1, 4]),
        (lambda: group(group(numbers(1, 2)), *numbers(3)), [2, 1, 3]),
        (lambda: [group(numbers(*range(12))), *numbers(12)], [*range(11, -1, -1), 12]),
        (lambda: numbers(*range(12)), list(range(12))),  # without a group, the order is kept
    ],
    ids=["two", "three", "two groups", "a group in it", "a group as the header", "twelve", "no group"],
)
def test_a_group_in_a_header(sandbox: Sandbox, header: Any, order: list[int]) -> None:
    """08.9 A group inside a chord's header is flattened, and its members come in reverse order."""
    start(sandbox)
    results = [chord(header(), monitored_task.s()).delay() for _ in range(10)]
    for result in results:
        assert result.get(timeout=20)["squares"] == [number**2 for number in order]


def test_a_group_in_a_group_in_a_chain(sandbox: Sandbox) -> None:
    """Claim 08.9, in a chain, where the outer group becomes a header."""
    start(sandbox)
    flow: Any = group(group(numbers(1, 2)), *numbers(3)) | monitored_task.s()
    assert flow.delay().get(timeout=20)["squares"] == [4, 1, 9]
