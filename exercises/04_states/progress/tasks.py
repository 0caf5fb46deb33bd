"""An import that says how far it is."""

from celery import Task

from celery_app import app


@app.task(bind=True)
def import_rows(self: Task, rows: list[int]) -> int:
    """Return the sum of the rows. Report after each one how many are done, and how many there are."""
    total = 0
    for number, row in enumerate(rows, 1):
        total += row
        # TODO 1: report here.
        self.update_state(state="WORKING", meta={"row": row, "at": number})
    # TODO 2: the sum is missing.
