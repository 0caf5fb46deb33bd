"""The claims of notebook 00, on tasks that wait until the test releases them."""

from pathlib import Path

import pytest

from lab.evidence import waiting
from lab.sandbox import Sandbox
from monitor import get_queue_length
from tasks.basic_tasks import add
from tests.helper_tasks import mark_and_wait
from tests.waiting import lines, wait_for
from tests.workers import start


def test_an_answer_is_not_the_work(sandbox: Sandbox, tmp_path: Path) -> None:
    """00.1 `delay()` returns when the message is sent, and not when the work is done."""
    results = [add.delay(1, number) for number in range(6)]  # no worker is there
    assert waiting("basic") == 6
    assert not any(result.ready() for result in results)

    start(sandbox)
    assert [result.get(timeout=20) for result in results] == [1, 2, 3, 4, 5, 6]
    runs, release = tmp_path / "runs", tmp_path / "release"
    result = mark_and_wait.delay(str(runs), str(release))  # it returns, though the task cannot end yet
    wait_for("it runs", lambda: lines(runs))
    assert not result.ready()
    release.touch()
    assert result.get(timeout=20) == "released"


@pytest.mark.parametrize(("children", "tasks"), [(1, 4), (2, 4), (2, 20), (3, 6)])
def test_tasks_at_a_time(sandbox: Sandbox, tmp_path: Path, children: int, tasks: int) -> None:
    """00.2 A prefork worker runs as many tasks at a time as it has pool children, however many wait."""
    runs, release = tmp_path / "runs", tmp_path / "release"
    results = [mark_and_wait.delay(str(runs), str(release)) for _ in range(tasks)]
    start(sandbox, concurrency=children)
    wait_for("each child runs one", lambda: len(lines(runs)) == children)
    assert len(set(lines(runs))) == children
    # The others are still in the queue: none of them can have begun.
    assert get_queue_length("basic") == {
        "waiting": tasks - children,
        "unacknowledged": children,
        "by_priority": {0: tasks - children},
    }
    release.touch()
    assert [result.get(timeout=20) for result in results] == ["released"] * tasks


def test_the_worker_that_is_left(sandbox: Sandbox) -> None:
    """00.3 After one of two workers of a queue has been killed, the other one does every task that is
    sent.
    """
    first = sandbox.start_worker(["basic"], "first")
    second = sandbox.start_worker(["basic"], "second")
    first.kill()
    clients = sandbox.broker.client()
    wait_for("the broker knows", lambda: clients.info("clients")["blocked_clients"] == 1)
    results = [add.delay(1, number) for number in range(20)]
    assert [result.get(timeout=20) for result in results] == list(range(1, 21))
    assert {str(result.worker).partition("@")[0] for result in results} == {second.name}
