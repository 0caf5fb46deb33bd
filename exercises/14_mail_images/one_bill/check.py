from random import randint
from uuid import uuid4

from lab import mail_server
from lab.workshop.room import Room, Wrong


def bills(room: Room, order: int) -> int:
    return sum(mail["Subject"] == f"Bill {order}" for mail in mail_server.received(room.sandbox.folder))


def task_1(room: Room) -> None:
    room.make_tables()
    room.worker()
    order, task_id = randint(10_000, 99_999), str(uuid4())
    for _ in range(2):  # what a redelivery is: the same message, with the same id
        room.outcome(
            "sent it", room.send("send_bill", order, "ada@example.org", options={"task_id": task_id})
        )
        room.wait("it is logged", lambda: False, 0.05)
    room.wait("both ran", lambda: len(room.runs(task_id)) > 1, 2)
    if (count := bills(room, order)) != 1:
        raise Wrong(
            f"delivered the same message for order {order} twice",
            f"{count} bills with the subject Bill {order}",
            "the unique_id must be the same when the task runs again, and the subject names the order",
        )


def task_2(room: Room) -> None:
    order = randint(100_000, 199_999)
    room.worker()
    outcomes = [room.run("send_bill", order, "ada@example.org") for _ in range(2)]
    if (count := bills(room, order)) != 1:
        means = (
            "each message has a task id of its own: make the unique_id of what the bill is about, the order"
        )
        raise Wrong(f"sent two messages for order {order}", f"{count} bills arrived", means)
    if [outcome.value for outcome in outcomes] != [True, False]:
        raise Wrong(
            f"sent two messages for order {order}",
            f"they returned {[o.value for o in outcomes]}",
            "True, and then False: already_sent tells it",
        )


def task_3(room: Room) -> None:
    order = randint(200_000, 299_999)
    room.worker()
    for number in (order, order + 300_000):
        room.run("send_bill", number, "ada@example.org")
        if bills(room, number) != 1:
            raise Wrong(
                f"sent the bill of order {number}",
                "it did not arrive",
                "the same customer has several orders: the number of the order belongs into the unique_id",
            )
