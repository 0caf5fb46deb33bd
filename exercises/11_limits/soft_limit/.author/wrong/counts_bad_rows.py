"""leave them out, and count the others"""

from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from celery_app import app
from lab.workshop.services import simulate_work


def export_row(row: str) -> None:
    """Export a row, which takes 0.1 seconds for each dot in it: simulated."""
    simulate_work(0.1 * row.count("."))
    int(row.replace(".", ""))


@app.task(soft_time_limit=1, time_limit=4)
def export(rows: list[str]) -> dict[str, Any]:
    """Export rows, and return how many they were. Rows that are no numbers are left out."""
    done = 0
    try:
        for row in rows:
            try:
                export_row(row)
            except ValueError:
                pass
            done += 1
    except SoftTimeLimitExceeded:
        return {"rows": done, "complete": False}
    return {"rows": done, "complete": True}
