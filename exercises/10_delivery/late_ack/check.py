from random import randint

from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    order = randint(10, 99)
    room.worker(["basic"], "first")
    result = room.send("pack", order)
    if not room.wait("it begins", lambda: room.effects("began")):
        raise Wrong(f"sent pack({order})", "it did not begin", "no worker has run it")
    room.end_worker("first")
    room.worker(["basic"], "second")
    did = f"sent pack({order}), killed its worker in the middle, and started another"
    if not room.wait("it ends", result.ready, 9):
        means = "the message was acknowledged before the task ran: nobody has it any more"
        raise Wrong(did, f"9 s later its state is {result.state}", means)
    if result.state != "SUCCESS" or result.result != f"packed {order}":
        raise Wrong(did, f"{result.state}, {result.result!r}", "the second run must do the work")


def task_2(room: Room) -> None:
    outcome = room.run("pack", -5)
    if outcome.state != "FAILURE" or len(outcome.runs) != 1:
        saw = f"{outcome.state} after {len(outcome.runs)} runs"
        raise Wrong(
            "sent pack(-5)", saw, "this order will not exist the next time either: it should fail, once"
        )
