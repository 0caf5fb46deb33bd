from random import randint

from lab.evidence import waiting
from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    room.worker()
    order = randint(10, 9999)
    did = f"called place_order({order}, 'tea'), with a worker that waits for work"
    outcome = room.outcome(did, room.call("place_order", order, "tea"))
    if "is not in the database" in outcome.error:
        raise Wrong(did, outcome.error, "the task ran before the commit: send it after the block")
    if outcome.value != "packed tea":
        raise Wrong(did, str(outcome), "'packed tea' is right")
    if len(outcome.runs) > 1:
        raise Wrong(
            did, f"{len(outcome.runs)} runs", "a retry hides it: the row comes late, and some day too late"
        )
    if "countdown" in room.source.decode() or "eta=" in room.source.decode():
        raise Wrong(
            did,
            "the task has a countdown",
            "a longer transaction would be too long for it: send after the commit",
        )


def task_2(room: Room) -> None:
    room.end_worker()
    before = waiting("basic")
    error = room.try_call("place_order", randint(10_000, 99_999), None)
    did = "called place_order with no article, which the database refuses"
    if error != "IntegrityError":
        raise Wrong(
            did, f"it raised {error or 'nothing'}", "whoever places the order must see the IntegrityError"
        )
    if waiting("basic") > before:
        raise Wrong(
            did,
            "the task was sent, for an order that does not exist",
            "a message cannot be taken back: send it after the commit",
        )
