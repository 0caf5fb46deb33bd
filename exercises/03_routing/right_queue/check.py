from random import randint

from lab.evidence import waiting
from lab.workshop.room import Room, Wrong


def look(room: Room, function: str, task: str, queue: str, other: str) -> None:
    room.worker(["realworld"], "printer")
    room.worker(["advanced"], "cashier")
    order, before = randint(10, 99), len(room.timeline.runs)
    result = room.sent(function, order)
    did = f"called {function}({order}), with a worker for realworld and one for advanced"
    if not room.wait("it ends", lambda: result.ready() or waiting("basic"), 3):
        raise Wrong(did, f"its state is {result.state}", "no worker has it")
    if waiting("basic"):
        raise Wrong(
            did,
            "the message waits in basic, and its state is PENDING",
            "nobody serves this queue: no error says so",
        )
    names = {"realworld": "printer", "advanced": "cashier"}
    ran = {run.worker.partition("@")[0].removeprefix("sandbox-") for run in room.runs(result.id)}
    if ran == {names[other]}:
        raise Wrong(did, f"the worker of {other} ran it", f"this task belongs into the queue {queue}")
    sent = room.timeline.runs[before:]
    if [run.name for run in sent] != [room.task(task)]:
        means = f"one message is to be sent, for {task}({order})"
        raise Wrong(did, f"it has sent {', '.join(run.call for run in sent)}", means)


def task_1(room: Room) -> None:
    look(room, "send_label", "print_label", "realworld", "advanced")


def task_2(room: Room) -> None:
    look(room, "send_charge", "charge_card", "advanced", "realworld")
