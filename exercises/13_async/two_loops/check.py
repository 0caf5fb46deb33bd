from lab.workshop.room import Room, Wrong


def book(room: Room) -> list[object]:
    if "booked" not in room.kept:
        room.kept["booked"] = [room.run("book", "tea") for _ in range(3)]
    return list(room.kept["booked"])


def task_1(room: Room) -> None:
    for outcome in book(room):
        if "different event loop" in outcome.error or "different loop" in outcome.error:
            means = "the lock belongs to the loop of the first task, and this task has another one"
            raise Wrong("sent book('tea') 3 times", outcome.error, means)
        if outcome.state != "SUCCESS" or not isinstance(outcome.value, int):
            raise Wrong("sent book('tea') 3 times", str(outcome), "each of them gives a number of pieces")


def task_2(room: Room) -> None:
    counts = [outcome.value for outcome in book(room)]
    if counts != [2, 1, 0]:
        saw = f"they got {counts} pieces, and there are 3"
        raise Wrong(
            "sent book('tea') 3 times, for 2 pieces each",
            saw,
            "two of them looked at the stock before one had changed it: "
            "the lock is missing, or is a new one each time",
        )
