"""Follow running tasks with progress bars, from what they report of themselves."""

import time
from collections.abc import Mapping
from typing import Any

from celery.result import AsyncResult
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from lab import console

LOOK_SECONDS = 0.05


def follow(results: Mapping[str, AsyncResult], timeout: float) -> list[Any]:
    """Show a bar for each task until all have ended, and return their results in the same order.

    `results` maps a label to each task. `timeout` is in seconds, for all of them together.
    Raises what a task has raised, and `celery.exceptions.TimeoutError`.
    Where the output is not a terminal, no bars are shown.
    """
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns, console=console.out, disable=not console.out.is_terminal) as bars:
        rows = {label: bars.add_task(label, total=100, status="waits") for label in results}
        deadline = time.monotonic() + timeout
        waiting = dict(results)
        while waiting and time.monotonic() < deadline:
            for label, result in list(waiting.items()):
                info = result.info  # a dict while the task reports its progress
                if result.ready():
                    bars.update(rows[label], completed=100, status=result.state)
                    del waiting[label]
                elif isinstance(info, dict) and "percent" in info:
                    bars.update(rows[label], completed=info["percent"], status=info["status"])
            time.sleep(LOOK_SECONDS)
    return [result.get(timeout=1) for result in results.values()]
