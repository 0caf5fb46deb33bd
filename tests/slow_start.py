"""A module that a worker imports while it starts. With START_MARK set, it makes that file and waits."""

import os
import time
from pathlib import Path

MARK = os.environ.get("START_MARK", "")

if MARK:
    Path(MARK).touch()
    while True:
        time.sleep(1)
