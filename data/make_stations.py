"""Make station files: invented daily temperatures, the same for the same seed.

python data/make_stations.py --stations 10 --days 365
"""

import argparse
import csv
import math
import random
from datetime import date, timedelta
from pathlib import Path

NAMES = ("north", "east", "south", "west", "coast", "hill", "lake", "forest")


def make_station(path: Path, days: int, mean: float, rng: random.Random) -> None:
    """Write `days` daily temperatures around a yearly curve with the given `mean` in degrees Celsius."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["day", "celsius"])
        for number in range(days):
            season = -10 * math.cos(2 * math.pi * number / 365)
            day = date(2026, 1, 1) + timedelta(days=number)
            rows.writerow([day.isoformat(), round(mean + season + rng.gauss(0, 2.5), 1)])


def main() -> None:
    """Read the options and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stations", type=int, default=4, help="how many files (default 4)")
    parser.add_argument("--days", type=int, default=60, help="rows in each file (default 60)")
    parser.add_argument("--seed", type=int, default=57, help="another seed, other weather")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "stations")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(options.seed)
    for number in range(options.stations):
        name = NAMES[number] if number < len(NAMES) else f"station{number + 1}"
        make_station(options.folder / f"{name}.csv", options.days, mean=6 + rng.random() * 12, rng=rng)


if __name__ == "__main__":
    main()
