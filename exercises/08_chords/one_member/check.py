from random import randint

from lab.workshop.room import Room, Wrong


def look(room: Room, count: int) -> None:
    room.worker()
    parcels = ["p" * randint(2, 9) for _ in range(count)]
    did, right = f"sent weigh_all({parcels})", 10 * sum(map(len, parcels))
    result = room.start("weigh_all", parcels)
    outcome = room.outcome(did, result, 3)
    if "object is not iterable" in outcome.error:
        raise Wrong(
            did, outcome.error, "in the middle of a chain a group of one gives its result itself, not a list"
        )
    if outcome.value != right:
        raise Wrong(did, f"{outcome}; right is {right}", "the sum has the weights of all parcels")
    if len(room.runs(name="weigh")) < len(parcels):
        raise Wrong(did, "weigh did not run for each parcel", "each parcel is a task of its own")


def task_1(room: Room) -> None:
    look(room, 3)


def task_2(room: Room) -> None:
    look(room, 1)
