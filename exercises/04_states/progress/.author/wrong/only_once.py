"""after each row, current is the number of rows that are done"""

from celery import Task

from celery_app import app


@app.task(bind=True)
def import_rows(self: Task, rows: list[int]) -> int:
    """Return the sum of the rows. Report after each one how many are done, and how many there are."""
    total = 0
    for row in rows:
        total += row
    self.update_state(state="PROGRESS", meta={"current": len(rows), "total": len(rows)})
    return total
