from lab.workshop.room import Room, Wrong


def behind(room: Room, prefetch: object) -> int:
    """Send a long task and 4 short ones to a worker, start a second one. Return how many still wait."""
    options = ["--prefetch-multiplier", str(prefetch)]
    # The long task takes longer than the visibility timeout of the profile drill.
    room.worker(["basic"], "one", options=options, profile="reliable")
    long = room.send("work", "long", 6)
    room.wait("the long one runs", lambda: any(run.started for run in room.runs(long.id, seconds=0.1)))
    short = [room.send("work", f"short {number}", 0.01) for number in range(4)]
    room.wait("the first worker has taken what it takes", lambda: False, 0.1)
    room.worker(["basic"], "two", options=options, profile="reliable")
    room.wait("an end", lambda: long.ready() or all(result.ready() for result in short), 12)
    waiting = sum(not result.ready() for result in short)
    for name in ("one", "two"):
        room.end_worker(name)
    room.broker.client().flushdb()
    return waiting


DID = "sent a long task and 4 short ones to a worker, and then started a second worker"


def task_1(room: Room) -> None:
    prefetch = room.look("PREFETCH")
    if not isinstance(prefetch, int) or prefetch < 0:
        raise Wrong("read PREFETCH", repr(prefetch), "it is a whole number")
    if prefetch == 0:
        raise Wrong("read PREFETCH", "0", "0 means no limit at all: the worker takes everything")
    waiting = behind(room, prefetch)
    if waiting > 1:
        means = f"the first worker had taken them: {prefetch} for each child"
        raise Wrong(DID, f"{waiting} short tasks waited until the long one had ended", means)


def task_2(room: Room) -> None:
    if room.option("work", "acks_late") is not True:
        saw = f"with prefetch 1, {behind(room, 1)} short task waited until the long one had ended"
        raise Wrong(
            DID,
            saw,
            "what is acknowledged early no longer counts, so the worker takes one more: acknowledge late",
        )
