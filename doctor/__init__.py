"""Finds hazards in anybody's Celery app: its settings, the code of its tasks, its live broker.

`python -m doctor --help` says how to run it. It needs Celery and nothing of this project. The folder can be
copied into another one. A finding is reported only where it can be decided: what may be meant is not told.
"""

from doctor.command import main

__all__ = ["main"]
