from random import randint
from uuid import uuid4

from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    room.task("pack")
    sent, unknown = room.send("pack", randint(1, 99)), str(uuid4())
    for task_id, right in ((unknown, "never sent"), (sent.id, "waiting")):
        if (said := room.call("describe", task_id, [sent.id])) != right:
            did = "asked for a task that was " + (
                "never sent" if task_id == unknown else "sent, without a worker"
            )
            means = "both have the state PENDING: look whether the id is in the list of what was sent"
            raise Wrong(did, f"describe said {said!r}, not {right!r}", means)


def task_2(room: Room) -> None:
    good, bad = randint(1, 99), -randint(1, 99)
    for order, right in ((good, "done"), (bad, f"failed: order {bad} does not exist")):
        outcome = room.run("pack", order)
        said = room.call("describe", outcome.id, [outcome.id])
        if said == right:
            continue
        means = "result.state says how it ended, and result.result holds the value or the error"
        if str(said).startswith("failed") and "Traceback" in str(said):
            means = "this is the traceback. The error itself is in result.result"
        raise Wrong(f"let a worker run pack({order})", f"describe said {said!r}, not {right!r}", means)
