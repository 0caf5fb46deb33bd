from random import randint

from broker import broker_channel
from lab.workshop.room import Room, Wrong


def raw_message(room: Room, order: int) -> str:
    room.send("ship", order, express=True)
    with broker_channel() as channel:
        return str(channel.client.lindex("basic", 0).decode())


def task_1(room: Room) -> None:
    name = room.call("task_name", raw_message(room, 5))
    if name != room.tasks["ship"]:
        saw = f"task_name returned {name!r}, not {room.tasks['ship']!r}"
        raise Wrong(
            "sent ship(5), and gave you the message", saw, "the name stands in the headers, under task"
        )


def task_2(room: Room) -> None:
    order = randint(100, 999)
    found = room.call("arguments", raw_message(room, order))
    if found == [[order], {"express": True}]:
        return
    means = (
        "the body is base64 of a JSON list of three: arguments, named arguments, and what follows the task"
    )
    if isinstance(found, list) and found and str(found[0]).startswith("("):
        means = "argsrepr is a text for people. The arguments themselves are in the body"
    raise Wrong(f"sent ship({order}, express=True)", f"arguments returned {found!r}", means)
