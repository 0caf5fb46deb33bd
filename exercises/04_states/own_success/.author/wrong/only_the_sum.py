"""both numbers belong into what the task returns"""

from celery_app import app


@app.task
def add_up(rows: list[str]) -> dict[str, int]:
    """Return the sum of the rows, and their number. Raises `ValueError` for a row that is no number."""
    return sum(int(row) for row in rows)
