from collections import Counter

from lab.workshop.room import Room, Wrong


def start(room: Room) -> list[dict[str, int]]:
    options, pool = room.look("OPTIONS"), room.look("POOL")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise Wrong("read OPTIONS", repr(options), "it is a list of texts")
    if "kept" not in room.kept:
        # A new child may take seconds: the visibility timeout plays no part here.
        room.kept["worker"] = room.worker(options=options, pool=pool, profile="reliable")
        room.kept["kept"] = [room.value("leak", seconds=20) for _ in range(4)]
    return list(room.kept["kept"])


def task_1(room: Room) -> None:
    kept = start(room)
    most = max(Counter(run["process"] for run in kept).values())
    if most > 3:
        option = "--max-memory-per-child" in " ".join(room.look("OPTIONS"))
        means = (
            "this option looks at the memory: it has not grown enough"
            if option
            else "the child was not replaced after 3 tasks"
        )
        if room.look("POOL") != "prefork":
            means = f"the pool {room.look('POOL')} has no children that could be replaced"
        raise Wrong(
            "sent leak 4 times", f"one process ran {most} of them, and kept {kept[-1]['kept']}", means
        )
    if most < 3:
        raise Wrong(
            "sent leak 4 times", f"each process ran {most}", "3 are asked for: a new child costs time"
        )


def task_2(room: Room) -> None:
    start(room)
    processes = {run["process"] for run in room.kept["kept"]}
    if room.kept["worker"].pid in processes:
        raise Wrong(
            "looked at the processes",
            "the worker itself ran the tasks",
            "this pool has no children: take prefork",
        )
