"""Have queues served: by the workers that are there already, or by one of our own."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from celery.utils.nodenames import gethostname, nodename, worker_direct

from celery_app import app, require_broker
from lab import console
from lab.sandbox import Sandbox
from settings import settings, without_password


def queues_served() -> dict[str, list[str]]:
    """Return the queues that workers serve now, each with its workers. Takes one second."""
    answers = app.control.inspect(timeout=1).active_queues() or {}
    found: dict[str, list[str]] = {}
    for worker, queues in answers.items():
        for queue in queues:
            found.setdefault(queue["name"], []).append(worker)
    return found


@contextmanager
def served(queues: Sequence[str], concurrency: int = 2) -> Iterator[Sandbox]:
    """Have `queues` served for the time of a block, and say by whom.

    Uses the workers that serve them, but none that ends with another program: it could end in the midst of
    the block. For queues that nobody else serves, starts a worker for the block.
    Raises `SandboxError` if the sandbox or the worker does not start, and `SystemExit` if a broker of the
    user does not answer.
    """
    if not settings.uses_sandbox:
        require_broker()
    with console.waiting_for("the broker"):
        sandbox = Sandbox(concurrency=concurrency)
        sandbox.open()
    try:
        if settings.uses_sandbox:
            sandbox.broker.require_ready()  # it may be frozen, or full
        found = {} if sandbox.is_new and settings.uses_sandbox else _that_stay(sandbox, queues_served())
        missing = [queue for queue in queues if queue not in found]
        if missing:
            with console.waiting_for("a worker"):
                worker = sandbox.start_worker(missing)
            whose = f"a worker of its own, {worker.name} (log: {worker.log})"
        else:
            whose = "the workers that are there: " + ", ".join(sorted({found[queue][0] for queue in queues}))
        broker = "the sandbox's own" if settings.uses_sandbox else without_password(settings.broker_url)
        console.say(f"Broker: {broker}. This program uses {whose}.")
        yield sandbox
    finally:
        sandbox.close()


def _that_stay(sandbox: Sandbox, found: dict[str, list[str]]) -> dict[str, list[str]]:
    passing = {worker.name for worker in sandbox.connection.status().workers if not worker.pinned}
    staying = {
        queue: [worker for worker in workers if worker.partition("@")[0] not in passing]
        for queue, workers in found.items()
    }
    return {queue: workers for queue, workers in staying.items() if workers}


class LoneWorker:
    """A worker with one pool child, and a queue that it alone serves. It runs for the time of a block.

        alone = LoneWorker(sandbox)
        result = add.apply_async((4, 5), queue=alone.queue)  # it waits
        with alone:
            result.get(timeout=10)

    The queue is Celery's own for one worker: see its setting `worker_direct`.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._name = f"alone-{os.getpid()}"
        self.queue = worker_direct(nodename(f"sandbox-{self._name}", gethostname()))

    def __enter__(self) -> Self:
        self._worker = self._sandbox.start_worker(
            ["health"], self._name, concurrency=1, options=["worker.direct=1"]
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.stop()
