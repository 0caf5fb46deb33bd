"""How tests start workers that know the tasks of the tests, and the wrong ones of the lessons."""

from typing import Any

from lab.sandbox import Sandbox, Worker


def start(sandbox: Sandbox, *queues: str, **options: Any) -> Worker:
    """Start a worker for `queues`; without any, for basic and advanced.

    `options` are those of `Sandbox.start_worker`.
    """
    include = ["tests.helper_tasks", "lab.wrong_tasks"]
    return sandbox.start_worker(queues or ("basic", "advanced"), include=include, **options)
