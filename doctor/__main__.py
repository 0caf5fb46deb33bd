"""Run the doctor: `python -m doctor`."""

import sys

from doctor.command import main

raise SystemExit(main(sys.argv[1:]))
