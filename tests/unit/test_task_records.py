"""Task records: nothing is lost, nothing is done twice, whoever dies and whatever comes again."""

import uuid
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError

from services.database import reading, writing
from services.models import TaskRecord
from services.task_records import (
    KeyReused,
    NoSuchTask,
    WrongStatus,
    create,
    find,
    give_back_unsent,
    mark_sent,
    page,
    replay,
    request_cancel,
    take_unsent,
)
from services.task_runs import LEASE, BeingRun, Cancelled, ClaimLost, Run, claim, fail_lost, heartbeats
from tests.unit.test_database import in_processes
from tests.waiting import wait_for

TASK = "tasks.ai_tasks.run_ai_text_generation"
PROMPT = {"prompt": "A short story"}

pytestmark = pytest.mark.usefixtures("any_shop")


def created(user: str = "ada", key: str | None = None) -> str:
    return create(TASK, PROMPT, user, key).record.id


def claimed(task_id: str) -> Run:
    run = claim(task_id)
    assert run
    return run


def let_pass(time: timedelta) -> None:
    """Make the leases older."""
    with writing() as session:
        for row in session.scalars(select(TaskRecord)):
            row.heartbeat_at = row.heartbeat_at and row.heartbeat_at - time
            row.dispatch_until = row.dispatch_until and row.dispatch_until - time


# --- What a user asks ---


def test_a_key_that_comes_again_gives_the_row_that_is_there():
    first, again = create(TASK, PROMPT, "ada", "key-1"), create(TASK, PROMPT, "ada", "key-1")
    assert (first.is_new, again.is_new) == (True, False)
    assert first.record.id == again.record.id
    assert create(TASK, PROMPT, "bob", "key-1").is_new


def test_a_key_with_another_request_is_refused():
    created(key="key-1")
    with pytest.raises(KeyReused, match="key-1"):
        create(TASK, {"prompt": "Another"}, "ada", "key-1")


def test_of_requests_with_one_key_at_once_one_makes_the_row():
    def ask(number: int) -> None:
        created(key="key-1")

    in_processes(8, ask)
    with reading() as session:
        assert session.scalar(select(func.count()).select_from(TaskRecord)) == 1


def test_a_task_of_another_user_does_not_exist():
    task_id = created("ada")
    for ask in (find, request_cancel, replay):
        with pytest.raises(NoSuchTask, match=task_id):
            ask(task_id, "bob")
    assert find(task_id).status == "pending"


def test_pages_are_newest_first_and_repeat_nothing_when_rows_arrive():
    ids = [created() for _ in range(5)]
    created("bob")
    first = [row.id for row in page("ada", limit=2)]
    created()
    rest = [row.id for row in page("ada", before=first[-1])]
    assert first == [row.id for row in page("ada")][1:3]
    assert sorted(first + rest) == sorted(ids)
    assert [row.id for row in page("ada", status="failed")] == []
    with pytest.raises(NoSuchTask):
        page("ada", before=str(uuid.uuid4()))


# --- The outbox ---


def test_two_dispatchers_never_get_the_same_row():
    ids = [created() for _ in range(40)]

    def dispatch(number: int) -> None:
        while rows := take_unsent(3, LEASE):
            with writing() as session:
                mine = update(TaskRecord).where(TaskRecord.id.in_([row.id for row in rows]))
                session.execute(mine.values(runs=TaskRecord.runs + 1))
            mark_sent([row.id for row in rows])

    in_processes(4, dispatch)
    assert {row.id: row.runs for row in page("ada", limit=100)} == dict.fromkeys(ids, 1)


def test_what_a_dead_dispatcher_held_is_free_after_its_lease():
    task_id = created()
    assert [row.id for row in take_unsent(10, LEASE)] == [task_id]
    assert take_unsent(10, LEASE) == []
    let_pass(LEASE + timedelta(seconds=1))
    assert [row.id for row in take_unsent(10, LEASE)] == [task_id]


def test_what_was_given_back_is_free_at_once_and_what_was_sent_is_not():
    task_id = created()
    take_unsent(10, LEASE)
    give_back_unsent([task_id])
    assert len(take_unsent(10, LEASE)) == 1
    mark_sent([task_id])
    give_back_unsent([task_id])
    assert take_unsent(10, LEASE) == []


def test_a_cancelled_row_is_not_sent():
    request_cancel(created())
    assert take_unsent(10, LEASE) == []


# --- The worker ---


def test_of_two_messages_one_runs_the_task():
    task_id = created()
    run = claimed(task_id)
    with pytest.raises(BeingRun):
        claim(task_id)
    run.complete({"text": "Once"})
    assert claim(task_id) is None
    record = find(task_id)
    assert (record.status, record.result, record.runs) == ("completed", {"text": "Once"}, 1)


def test_of_many_workers_at_once_one_claims():
    task_id = created()

    def work(number: int) -> None:
        try:
            run = claim(task_id)
        except BeingRun:
            return
        assert run

    in_processes(6, work)
    assert find(task_id).runs == 1


def test_a_silent_worker_loses_its_claim_and_can_write_nothing():
    task_id = created()
    first = claimed(task_id)
    let_pass(LEASE + timedelta(seconds=1))
    second = claimed(task_id)
    with pytest.raises(ClaimLost):
        first.report(50, "half")
    with pytest.raises(ClaimLost):
        first.complete("first")
    second.complete("second")
    assert find(task_id).result == "second"


def test_heartbeats_keep_the_claim_while_a_step_takes_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.task_runs.HEARTBEAT", 0.01)
    task_id = created()
    run = claimed(task_id)
    let_pass(LEASE)
    with heartbeats(run):
        old = find(task_id).heartbeat_at
        assert old
        while find(task_id).heartbeat_at == old:
            pass
    with pytest.raises(BeingRun):
        claim(task_id)


def test_a_lost_worker_is_told_and_its_task_can_be_replayed():
    task_id = created()
    mark_sent([task_id])
    lost = claimed(task_id)
    let_pass(2 * LEASE - timedelta(seconds=5))
    assert fail_lost() == 0
    let_pass(timedelta(seconds=6))
    assert fail_lost() == 1
    record = find(task_id)
    assert record.status == "failed"
    assert "lost" in str(record.error)
    assert claim(task_id) is None  # the message comes again later, and does nothing
    replay(task_id)
    assert [row.id for row in take_unsent(10, LEASE)] == [task_id]
    with pytest.raises(ClaimLost):
        lost.complete("too late")
    claimed(task_id).complete("again")
    assert find(task_id).runs == 2


def test_a_task_that_waits_is_cancelled_at_once():
    task_id = created()
    assert request_cancel(task_id).status == "cancelled"
    assert claim(task_id) is None
    assert request_cancel(task_id).status == "cancelled"  # asked twice, the same


def test_a_task_that_runs_sees_the_cancel_at_its_next_report():
    task_id = created()
    run = claimed(task_id)
    assert request_cancel(task_id).status == "processing"
    run.check()  # nothing is known yet
    run.beat()
    with pytest.raises(Cancelled):
        run.check()
    run.cancelled()
    assert find(task_id).status == "cancelled"


def test_a_retry_gives_the_row_back():
    task_id = created()
    mark_sent([task_id])
    claimed(task_id).give_back("429, try again")
    assert find(task_id).step == "429, try again"
    assert take_unsent(10, LEASE) == []  # Celery sends the message of a retry itself
    assert claimed(task_id)


def test_a_retry_of_what_was_cancelled_meanwhile_cancels_it():
    task_id = created()
    run = claimed(task_id)
    request_cancel(task_id)
    run.give_back("429, try again")
    record = find(task_id)
    assert (record.status, record.finished_at is None) == ("cancelled", False)
    assert claim(task_id) is None


def test_a_lost_task_that_was_cancelled_is_cancelled():
    task_id = created()
    claimed(task_id)
    request_cancel(task_id)
    let_pass(3 * LEASE)
    assert fail_lost() == 1
    assert (find(task_id).status, find(task_id).error) == ("cancelled", None)


def test_a_heartbeat_that_cannot_be_written_does_not_end_the_next_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.task_runs.HEARTBEAT", 0.01)
    run = claimed(created())
    beats: list[str] = []

    def beat() -> None:
        beats.append("x")
        raise OperationalError("UPDATE", {}, Exception("database is locked"))

    monkeypatch.setattr(run, "beat", beat)
    with heartbeats(run):
        wait_for("it beats again", lambda: len(beats) > 2)


def test_what_has_finished_can_be_neither_cancelled_nor_replayed():
    task_id = created()
    claimed(task_id).complete("done")
    for ask in (request_cancel, replay):
        with pytest.raises(WrongStatus, match="completed"):
            ask(task_id)


def test_a_claim_of_an_unknown_id_says_so():
    with pytest.raises(NoSuchTask, match="nobody"):
        claim("nobody")
