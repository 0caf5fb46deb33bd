"""The workshop: exercises, and a checker that runs them on real workers.

In a notebook:

    from lab.workshop import check, exercises
    exercises("09")              # those of notebook 09, each with a link to your file
    check("retries/backoff")     # the verdict of ./learn check
"""

from lab.workshop.notebook import check, exercises

__all__ = ["check", "exercises"]
