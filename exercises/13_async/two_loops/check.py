from lab.workshop.room import Outcome, Room, Wrong


def book(room: Room) -> list[Outcome]:
    if "booked" not in room.kept:
        room.kept["booked"] = [room.run("book", "tea") for _ in range(3)]
    return list(room.kept["booked"])


def task_1(room: Room) -> None:
    for outcome in book(room):
        if "different event loop" in outcome.error or "different loop" in outcome.error:
            means = "the lock belongs to the loop of the first task, and this task has another one"
            raise Wrong("sent book('tea') 3 times", outcome.error, means)
        if type(outcome.value) is not int:
            raise Wrong("sent book('tea') 3 times", str(outcome), "each of them gives a number of pieces")


def task_2(room: Room) -> None:
    counts = [outcome.value for outcome in book(room)]
    if None in counts:
        raise Wrong("sent book('tea') 3 times", f"they got {counts}", "first it must work: see task 1")
    if counts != [2, 1, 0]:
        saw = f"they got {counts} pieces, and there are 3"
        raise Wrong(
            "sent book('tea') 3 times, for 2 pieces each",
            saw,
            "two of them looked at the stock before one had changed it: "
            "the lock is missing, or is a new one each time",
        )
    book_at_once(room)


def book_at_once(room: Room) -> None:
    room.end_worker()
    results = [room.send("book", "tea") for _ in range(3)]
    room.worker(["basic"], "threads", pool="threads", concurrency=3)
    did = "sent book('tea') 3 times, to a worker with 3 threads"
    outcomes = [room.outcome(did, result) for result in results]
    if failed := [outcome for outcome in outcomes if outcome.state != "SUCCESS"]:
        means = "on threads, several tasks use the loop at the same time: AsyncTask lets them"
        raise Wrong(did, failed[0].error, means)
    if (sold := sum(outcome.value for outcome in outcomes)) != 3:
        means = (
            "the tasks run at the same time, and each has a lock of its own: one lock, made once, is for all"
        )
        raise Wrong(did, f"they got {sold} pieces, and there are 3", means)
