from random import randint

from lab.workshop.room import Room, Wrong


def run_chord(room: Room) -> tuple[str, list[str], object]:
    room.worker(["basic"], concurrency=2)
    shops = ["s" * randint(2, 9) for _ in range(randint(3, 5))]
    did = f"sent stock_chord({shops})"
    result = room.start("stock_chord", shops)
    if not room.wait("it ends", result.ready):
        raise Wrong(did, "it has not ended", "does the body wait for something?")
    return did, shops, result.get(timeout=1, propagate=False)


def task_1(room: Room) -> None:
    did, shops, _ = run_chord(room)
    counted = len(room.runs(name="count_stock"))
    if counted != len(shops):
        raise Wrong(
            did,
            f"the runs of count_stock are {counted}, and the shops {len(shops)}",
            "the header has one signature for each shop",
        )


def task_2(room: Room) -> None:
    did, shops, value = run_chord(room)
    right = 11 * sum(map(len, shops))
    if "is not iterable" in repr(value):
        means = "total got a number: a chord, or a group before it, gives it the list of all results"
        raise Wrong(did, repr(value), means)
    if "TypeError" in repr(value):
        raise Wrong(did, repr(value), "the body gets one argument, the list. total.s() has none of its own")
    if isinstance(value, list):
        raise Wrong(did, f"the result is {value!r}", "these are the results of the header: there is no body")
    if value != right or not room.runs(name="total"):
        raise Wrong(
            did, f"the result is {value!r}, and {right} is right", "the body is total, run by a worker"
        )
