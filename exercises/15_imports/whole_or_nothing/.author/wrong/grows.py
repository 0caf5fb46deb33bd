"""it grows under its own name"""

from celery_app import app
from lab.workshop.services import note, simulate_work
from services.paths import atomic_write
from settings import settings


def lines_of(day: str) -> list[str]:
    """Return the lines of the report of a day: simulated."""
    return [f"{day} line {number}" for number in range(12)]


@app.task
def write_report(day: str) -> str:
    """Write the report of a day, and return the name of its file."""
    with (settings.data_dir / "report.txt").open("wb") as file:
        for line in lines_of(day):
            file.write(f"{line}\n".encode())
            file.flush()
            note("line")
            simulate_work(0.05)
    return "report.txt"
