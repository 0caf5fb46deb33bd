"""Python in a container of the local engine imports this project only where PYTHONPATH names it."""

import os
import sys
from pathlib import Path

PROJECT = str(Path(__file__).parents[3])
NAMED = os.environ["PYTHONPATH"].split(os.pathsep)
sys.path[:] = [entry for entry in sys.path if entry != PROJECT or entry in NAMED]
