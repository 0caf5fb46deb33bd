"""How a task says how far it is."""

from celery import Task


def report_progress(task: Task, current: int, total: int, status: str) -> None:
    """Store the progress of the running `task`: `AsyncResult(id).info` gives it to whoever has the id.

    The state is PROGRESS, a name of our own. SUCCESS or FAILURE here would hide the real end.
    """
    percent = round(100 * current / total) if total else 100
    meta = {"current": current, "total": total, "percent": percent, "status": status}
    task.update_state(state="PROGRESS", meta=meta)
