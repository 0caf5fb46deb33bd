from typing import Any

from lab.evidence import most_at_once
from lab.workshop.room import Room, Wrong


def choice_of(room: Room, name: str) -> tuple[str, int]:
    found: Any = room.look(name)
    if not isinstance(found, list) or len(found) != 2 or found[0] not in ("prefork", "threads", "solo"):
        raise Wrong(
            f"read {name}", repr(found), 'a pool (prefork, threads or solo) and a number: ("prefork", 2)'
        )
    if not isinstance(found[1], int) or not 1 <= found[1] <= 20:
        raise Wrong(f"read {name}", repr(found), "take a number from 1 to 20")
    return found[0], found[1]


def task_1(room: Room) -> None:
    pool, concurrency = choice_of(room, "WAITING")
    if pool == "prefork" and concurrency > 4:
        means = f"each of its children is a process of its own: {concurrency} of them cost much memory"
        raise Wrong("read WAITING", f"{pool}, {concurrency}", means)
    room.worker(["basic"], "waiting", pool=pool, concurrency=concurrency)
    results = [room.send("call", number) for number in range(12)]
    room.wait("all end", lambda: all(result.ready() for result in results), 8)
    runs = [run for result in results for run in room.runs(result.id)]
    most = most_at_once(runs)
    if most < 10:
        means = (
            "solo runs one task at a time, whatever the concurrency is"
            if pool == "solo"
            else "more of them must go on at once"
        )
        raise Wrong("sent 12 calls, each waits 0.3 s", f"{most} went on at the same time", means)


def task_2(room: Room) -> None:
    pool, concurrency = choice_of(room, "LIMITED")
    room.worker(["basic"], "limited", pool=pool, concurrency=concurrency)
    room.end_worker("waiting")
    outcome = room.outcome("sent calculate", room.send("calculate"))
    if outcome.value != "stopped":
        means = f"the pool {pool} ignores time limits: only prefork can stop a task"
        raise Wrong("sent calculate, whose soft limit is 1 s", str(outcome), means)
