"""A journal of failures: one JSON line each, in the state folder."""

import json

from settings import settings


def record_failure(task_id: str, error: str) -> None:
    """Append a line for the failed task `task_id`. Lines of several processes do not mix."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"task_id": task_id, "error": error}) + "\n"
    with (settings.state_dir / "failures.jsonl").open("a") as file:
        file.write(line)


def failures_of(task_id: str) -> list[str]:
    """Return the errors that were recorded for the task `task_id`, oldest first."""
    journal = settings.state_dir / "failures.jsonl"
    if not journal.exists():
        return []
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    return [entry["error"] for entry in entries if entry["task_id"] == task_id]
