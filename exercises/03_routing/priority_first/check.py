from lab.workshop.room import Room, Wrong


def order_of_start(room: Room) -> list[str]:
    room.task("pack")
    results = [
        room.sent(f"send_{kind}", f"{kind} {number}")
        for number in (1, 2)
        for kind in ("normal", "gift", "express")
    ]
    room.worker()
    for result in results:
        room.outcome("let one worker pack them all", result)
    runs = sorted((run for run in room.runs(name="pack") if run.started), key=lambda run: run.started or 0)
    room.end_worker()
    return [run.call.split("'")[1] for run in runs][-6:]


def compare(room: Room, first: str, second: str) -> None:
    order = order_of_start(room)
    at = {
        kind: [place for place, name in enumerate(order) if name.startswith(kind)] for kind in (first, second)
    }
    if max(at[first]) < min(at[second]):
        return
    means = "on Redis, the smaller number is served first: 0 before 9"
    if min(at[second]) < min(at[first]) < max(at[second]) or min(at[first]) < min(at[second]) < max(
        at[first]
    ):
        means = (
            "both kinds wait in one list, in the order in which they were sent: they have the same priority"
        )
    raise Wrong(
        "sent six orders, and then started a worker with one child", f"it packed {', '.join(order)}", means
    )


def task_1(room: Room) -> None:
    compare(room, "express", "normal")


def task_2(room: Room) -> None:
    compare(room, "normal", "gift")
