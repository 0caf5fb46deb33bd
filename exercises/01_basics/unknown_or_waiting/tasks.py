"""What a shop tells of a task, by its id."""

from celery_app import app


@app.task
def pack(order: int) -> str:
    """Pack an order."""
    if order < 0:
        raise ValueError(f"order {order} does not exist")
    return f"order {order} is packed"


def describe(task_id: str, sent: list[str]) -> str:
    """Return "never sent", "waiting", "done", or "failed: " with the error. `sent`: ids of all tasks sent."""
    result = app.AsyncResult(task_id)
    # TODO 1: PENDING has two meanings here.
    # TODO 2: say how it has ended.
    return "waiting" if result.state == "PENDING" else "known"
