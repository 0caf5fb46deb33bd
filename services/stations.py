"""Weather stations: read a file of daily temperatures, describe it, compare stations.

The files in data/stations are made by data/make_stations.py, not measured.
"""

import csv
import json
from pathlib import Path
from statistics import fmean

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from services.error_texts import shown, some_of
from services.paths import atomic_write
from settings import settings


class Reading(TypedDict):
    """One day at one station."""

    day: str
    celsius: float


class StationData(TypedDict):
    """All readings of one station."""

    source: str
    readings: list[Reading]


class StationSummary(TypedDict):
    """What a station's readings come to. Temperatures are in degrees Celsius."""

    source: str
    days: int
    mean: float
    coldest: float
    warmest: float


class Comparison(TypedDict):
    """Several stations, compared."""

    stations: int
    days: int
    mean: float
    warmest_station: str


def sources() -> list[str]:
    """Return the names of the stations that have a file, sorted."""
    return sorted(path.stem for path in (settings.data_dir / "stations").glob("*.csv"))


def _known(source: str) -> str:
    """Return `source`, which a message brought, if it is a station's: only then may it be part of a path."""
    if source not in sources():
        raise ValueError(f"source={shown(source)}: no such station; use one of {some_of(sources())}")
    return source


def fetch(source: str) -> StationData:
    """Read the daily temperatures of the station `source`.

    Raises `ValueError` for a station without a file.
    """
    with (settings.data_dir / "stations" / f"{_known(source)}.csv").open(newline="") as file:
        readings = [Reading(day=row["day"], celsius=float(row["celsius"])) for row in csv.DictReader(file)]
    return {"source": source, "readings": readings}


def describe(data: StationData) -> StationSummary:
    """Return the mean and the extremes of one station's readings.

    Raises `ValueError` if there is no reading.
    """
    temperatures = [reading["celsius"] for reading in data["readings"]]
    if not temperatures:
        raise ValueError(f"source={shown(data['source'])}: no readings; a summary needs at least one day")
    return {
        "source": data["source"],
        "days": len(temperatures),
        "mean": round(fmean(temperatures), 1),
        "coldest": min(temperatures),
        "warmest": max(temperatures),
    }


def save(summary: StationSummary) -> Path:
    """Write one station's summary as JSON into the state folder, in place of an older one.

    Raises `ValueError` for a station without a file.
    """
    path = settings.state_dir / "summaries" / f"{_known(summary['source'])}.json"
    with atomic_write(path) as file:  # several processes may write it, and readers never see half of it
        file.write(json.dumps(summary).encode())
    return path


def compare(summaries: list[StationSummary]) -> Comparison:
    """Compare stations by their mean temperature.

    Raises `ValueError` for an empty list.
    """
    if not summaries:
        raise ValueError("summaries=[]: nothing to compare; give at least one station")
    days = sum(summary["days"] for summary in summaries)
    return {
        "stations": len(summaries),
        "days": days,
        "mean": round(sum(summary["mean"] * summary["days"] for summary in summaries) / days, 1),
        "warmest_station": max(summaries, key=lambda summary: summary["mean"])["source"],
    }
