"""the first line of rejects.csv is"""

import csv
from pathlib import Path

from celery_app import app
from settings import settings


@app.task
def import_orders(name: str) -> dict[str, int]:
    """Import a file of the data folder with the columns order and pence. Bad rows go to rejects.csv."""
    source = settings.data_dir / Path(name).name
    rows = pence = 0
    with source.open(newline="") as file, (settings.data_dir / "rejects.csv").open("w", newline="") as bad:
        reader = csv.DictReader(file)
        rejects = csv.writer(bad)
        rejects.writerow([])
        for row in reader:
            try:
                int(row["order"])
                pence += int(row["pence"])
                rows += 1
            except ValueError:
                continue
    return {"rows": rows, "pence": pence}
