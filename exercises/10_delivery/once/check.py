from random import randint

from lab.workshop.room import Room, Wrong


def charges(room: Room, orders: list[int]) -> list[int]:
    results = [room.send("pay", order) for order in orders]
    for order, result in zip(orders, results, strict=True):
        if room.wait("its receipt", result.ready) and result.result == f"R-{order}":
            continue
        outcome = room.outcome(f"sent pay({order})", result)
        if outcome.value != f"R-{order}":
            raise Wrong(f"sent pay for {orders}", str(outcome), f"each of them gets the receipt R-{order}")
    return [effect["order"] for effect in room.effects("charge")]


NOT_CHARGED = "the first message of an order charges it. Its key must be new, and have its number"


def task_1(room: Room) -> None:
    room.worker()
    order = randint(100, 199)
    for number in (1, 2):
        charged = charges(room, [order]).count(order)
        if charged != 1:
            raise Wrong(
                f"sent pay({order}) " + ("once" if number == 1 else "twice, one after the other"),
                f"it was charged {charged} times",
                "look for a mark of this order before you charge, and leave one" if charged else NOT_CHARGED,
            )


def task_2(room: Room) -> None:
    room.worker(["basic"], "two", concurrency=2)
    for _ in range(2):
        order = randint(200, 9999)
        charged = charges(room, [order] * 4).count(order)
        if charged != 1:
            means = (
                "all of them looked before one had written. Looking and writing must be one step: SET with NX"
            )
            raise Wrong(
                f"sent pay({order}) 4 times at the same moment",
                f"it was charged {charged} times",
                means if charged else NOT_CHARGED,
            )


def task_3(room: Room) -> None:
    orders = [randint(10_000, 19_999) + number for number in (0, 20_000, 40_000)]
    charged = charges(room, orders)
    if missing := [order for order in orders if charged.count(order) != 1]:
        raise Wrong(
            f"sent pay for {orders}",
            f"{missing} not charged once",
            "the mark belongs to one order: put its number into the key",
        )
