import sqlite3
import time
from contextlib import closing
from random import randint

from lab.evidence import waiting
from lab.workshop.room import Room, Wrong

WORK_SECONDS = 0.2  # what place_order does in its transaction


def task_1(room: Room) -> None:
    room.worker()
    order = randint(10, 9999)
    did = f"called place_order({order}, 'tea'), with a worker that waits for work"
    began = time.time()
    outcome = room.outcome(did, room.sent("place_order", order, "tea"))
    if "is not in the database" in outcome.error:
        means = "the task ran before the commit: send it after the block"
        if not is_written(room, order):
            means = (
                "it is not there now either: nothing commits the transaction. The end of the with block does"
            )
        raise Wrong(did, outcome.error, means)
    if outcome.value != "packed tea":
        raise Wrong(did, str(outcome), "'packed tea' is right")
    if len(outcome.runs) > 1:
        raise Wrong(
            did, f"{len(outcome.runs)} runs", "a retry hides it: the row comes late, and some day too late"
        )
    sent = outcome.runs[0].sent if outcome.runs else None
    if sent and sent - began < WORK_SECONDS:
        means = "the transaction had 0.2 s of work to do, and was not at its end: send after the commit"
        raise Wrong(did, f"the task was sent after {sent - began:.2f} s", means)


def is_written(room: Room, order: int) -> bool:
    with closing(sqlite3.connect(room.folder / "orders.sqlite")) as database:
        return database.execute("SELECT 1 FROM orders WHERE id = ?", (order,)).fetchone() is not None


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
