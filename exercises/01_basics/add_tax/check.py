from random import randint

from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    room.value("with_tax", 100, 10)


def task_2(room: Room) -> None:
    pence, percent = randint(300, 900), randint(11, 29)
    value, right = room.value("with_tax", pence, percent), round(pence * (100 + percent) / 100)
    if value == right:
        return
    saw = f"it returned {value!r}, not {right}"
    did = f"sent with_tax({pence}, {percent})"
    if value is None:
        raise Wrong(did, saw, "a task gives back what its function returns: there is no return")
    if isinstance(value, float):
        raise Wrong(did, saw, "the result is no whole number of pence: round it")
    if value == pence * percent // 100 or value == round(pence * percent / 100):
        raise Wrong(did, saw, "this is the tax alone, without the price")
    raise Wrong(did, saw, "the price plus the tax would be pence * (100 + percent) / 100")
