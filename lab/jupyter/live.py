"""The timeline of one sandbox, drawn anew whenever something has happened in it.

`extension.py` runs this program beside a notebook: `python -m lab.jupyter.live`. It writes one line of JSON
for each picture, and ends when its standard input does: then nobody looks any more.
"""

import json
import select
import sys
import time
from collections.abc import Sequence

from kombu.exceptions import OperationalError

from lab import markup
from lab.chart import chart, counts
from lab.runs import Run
from lab.timeline import Timeline

RECENT_SECONDS = 60.0
ROWS = 20
COLUMNS = 62  # of the text: what fits beside a notebook
POLL_SECONDS = 1.0
NO_RUN = "No task yet. Tasks appear here as soon as they are sent."


def recent(runs: Sequence[Run]) -> list[Run]:
    """Return the runs in which something happened in the last minute before the newest event."""
    newest = max((run.times[-1] for run in runs), default=0.0)
    return [run for run in runs if run.times[-1] > newest - RECENT_SECONDS]


def goes_on(runs: Sequence[Run], now: float) -> bool:
    """Tell whether one of these runs may go on: then the picture changes with time alone."""
    return any(run.ended is None and now - run.times[-1] < RECENT_SECONDS for run in runs)


def picture(runs: Sequence[Run], now: float | None = None) -> dict[str, str]:
    """Return the chart of `runs` as HTML, as text, and in a sentence. With `now`, runs last until then."""
    if not runs:
        return {"html": NO_RUN, "text": NO_RUN, "said": NO_RUN}
    text = chart(runs, COLUMNS, ROWS)
    return {"html": markup.timeline(runs, ROWS, now), "text": text, "said": counts(runs)}


def main() -> None:
    """Draw the sandbox of the settings, until standard input ends or the broker is gone."""
    drawn: list[Run] | None = None
    try:
        with Timeline() as timeline:
            while not select.select([sys.stdin], [], [], 0 if drawn is None else POLL_SECONDS)[0]:
                runs, now = recent(timeline.runs), time.time()
                lasts = goes_on(runs, now)
                if runs != drawn or lasts:
                    print(json.dumps(picture(runs, now if lasts else None)), flush=True)
                    drawn = runs
    except OperationalError as error:
        sys.exit(f"The live view has lost its sandbox: {error}")


if __name__ == "__main__":
    main()
