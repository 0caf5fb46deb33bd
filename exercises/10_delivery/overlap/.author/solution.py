"""Many files, in steps that are short."""

from celery import chain
from celery.canvas import Signature

from celery_app import app
from lab.workshop.services import note, simulate_work


@app.task
def copy_file(done: int, name: str) -> int:
    """Copy a file, which takes 0.8 seconds: simulated. Return how many are done."""
    simulate_work(0.8)
    note("copy", name=name)
    return done + 1


def copy_files(names: list[str]) -> Signature:
    """Return a canvas that copies the files one after the other, and gives their number."""
    first, *others = names
    return chain(copy_file.s(0, first), *(copy_file.s(name) for name in others))
