from lab.workshop.room import Room, Wrong


def run(room: Room, prefetch: object) -> list[str]:
    """Send a long task and 4 short ones to a worker, start a second one, return the order of the ends."""
    (room.folder / "effects").unlink(missing_ok=True)
    options = ["--prefetch-multiplier", str(prefetch)]
    room.worker(["basic"], "one", options=options)
    results = [room.send("work", "long", 1.5)]
    room.wait("the long one runs", lambda: any(run.started for run in room.runs(results[0].id, seconds=0.1)))
    results += [room.send("work", f"short {number}", 0.01) for number in range(4)]
    room.wait("one has taken what it takes", lambda: False, 0.1)
    room.worker(["basic"], "two", options=options)
    for result in results:
        room.outcome("sent a long task and 4 short ones", result)
    for name in ("one", "two"):
        room.end_worker(name)
    return [effect["name"] for effect in room.effects("done")]


DID = "sent a long task and 4 short ones to a worker, and then started a second worker"


def task_1(room: Room) -> None:
    prefetch = room.look("PREFETCH")
    if not isinstance(prefetch, int) or prefetch < 0:
        raise Wrong("read PREFETCH", repr(prefetch), "it is a whole number")
    if prefetch == 0:
        raise Wrong("read PREFETCH", "0", "0 means no limit at all: the worker takes everything")
    behind = 4 - run(room, prefetch).index("long")
    if behind > 1:
        means = f"the first worker had taken them: {prefetch} for each child"
        raise Wrong(DID, f"{behind} short tasks ended after the long one", means)


def task_2(room: Room) -> None:
    if room.option("work", "acks_late") is not True:
        behind = 4 - run(room, 1).index("long")
        saw = f"with prefetch 1, {behind} short task ended after the long one"
        raise Wrong(
            DID,
            saw,
            "what is acknowledged early no longer counts, so the worker takes one more: acknowledge late",
        )
