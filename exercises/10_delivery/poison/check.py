from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    room.worker(profile="reliable")  # a visibility timeout that plays no part here
    result = room.send("pack", "poison")
    room.wait("it ends or runs too often", lambda: result.ready() or len(room.effects("poison")) > 5, 30)
    runs = len(room.effects("poison"))
    did = "sent an order that kills its process each time"
    if result.state not in ("FAILURE",):
        raise Wrong(
            did,
            f"{runs} runs so far, and its state is {result.state}",
            "it comes back each time, for ever: bound it",
        )
    room.wait("it rests", lambda: False, 0.2)
    if (runs := len(room.effects("poison"))) > 3:
        raise Wrong(did, f"{runs} runs", "2 retries are enough: max_retries")
    if runs < 2:
        means = "a process may die by bad luck, and this order gets no second try. See retry_on_worker_lost"
        raise Wrong(did, "one run, and FAILURE", means)


def task_2(room: Room) -> None:
    outcome = room.run("pack", "unlucky", seconds=20)
    if outcome.value != "packed unlucky":
        means = "its process was killed once: the second try would do. retry_on_worker_lost is the option"
        raise Wrong("sent an order whose process is killed at the first try", str(outcome), means)
