"""A sum, and how many numbers it has."""

from celery_app import app


@app.task
def add_up(rows: list[str]) -> dict[str, int]:
    """Return the sum of the rows, and their number. Raises `ValueError` for a row that is no number."""
    return {"sum": sum(int(row) for row in rows), "rows": len(rows)}
