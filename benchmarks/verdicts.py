"""How long a learner waits for a verdict, from the save to the last line.

python benchmarks/verdicts.py --runs 5 [--exercise routing]

Each exercise's solution is checked, as in watch mode: the checker is there, and the next check is prepared.
The parts are of one check: loading the file, the worker until it is ready, and the rest, task by task.
"""

import argparse
import statistics
import time

from lab.workshop.checker import Checker
from lab.workshop.forks import begin_sandbox
from lab.workshop.manifest import Exercise, load


def seconds_of(checker: Checker, exercise: Exercise) -> tuple[float, float]:
    """Return how long the verdict on a solution takes, and the cleaning up and preparing after it."""
    checker.make_ready()
    time.sleep(0.5)  # a learner takes longer than that to edit; the next check gets ready
    verdict = checker.check(exercise, exercise.solution)
    if not verdict.passed:
        raise SystemExit(verdict.text())
    ended = time.perf_counter()
    checker.make_ready()
    return verdict.seconds, time.perf_counter() - ended


def main() -> None:
    """Measure, and print a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--exercise", default="", help="only those whose id contains this")
    arguments = options.parse_args()
    exercises = [one for one in load() if arguments.exercise in one.id]
    rounds: dict[str, list[float]] = {one.id: [] for one in exercises}
    preparing = []
    with Checker(begin_sandbox()) as checker:
        for _ in range(arguments.runs):
            for one in exercises:
                seconds, after = seconds_of(checker, one)
                rounds[one.id].append(seconds)
                preparing.append(after)
    print(f"{'exercise':36} {'median':>7} {'most':>7}  seconds, {arguments.runs} runs")
    for one in exercises:
        note = "  its subject is waiting" if one.waits else ""
        print(f"{one.id:36} {statistics.median(rounds[one.id]):7.2f} {max(rounds[one.id]):7.2f}{note}")
    quick = sorted(seconds for one in exercises if not one.waits for seconds in rounds[one.id])
    if quick:
        print(f"{'all whose subject is not waiting':36} {statistics.median(quick):7.2f} {quick[-1]:7.2f}")
        print(f"95 % of them within {quick[int(0.95 * (len(quick) - 1))]:.2f} s")
    print(f"cleaning up and preparing the next: {statistics.median(preparing):.3f} s, after the verdict")


if __name__ == "__main__":
    main()
