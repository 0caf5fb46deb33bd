"""a bad row counts neither as a row nor with its pence"""

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
        rejects.writerow(["line", "reason", "order", "pence"])
        for row in reader:
            try:
                rows += 1
                pence += int(row["pence"])
                int(row["order"])
            except ValueError as error:
                rejects.writerow([reader.line_num, str(error), row["order"], row["pence"]])
    return {"rows": rows, "pence": pence}
