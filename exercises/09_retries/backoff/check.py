from random import randint

from lab.evidence import retry_waits
from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    room.away("charge", 2)
    order = randint(10, 99)
    outcome = room.run("pay", order)
    did = "sent pay, with the service away for the first 2 calls"
    if outcome.value != f"R-{order}":
        calls = len(room.effects())
        means = (
            "it was not tried often enough" if calls > 1 else "the error was not answered with self.retry(…)"
        )
        raise Wrong(did, str(outcome), means)
    if len(outcome.runs) < 3:
        saw = f"{len(outcome.runs)} run called the service {len(room.effects())} times"
        raise Wrong(
            did,
            saw,
            "a loop inside the task keeps the pool child busy while it waits: self.retry(…) gives it back",
        )
    if (most := room.option("pay", "max_retries")) != 4:
        raise Wrong("read the option max_retries", f"it is {most}", "4 is asked for: not for ever, and not 3")


def task_2(room: Room) -> None:
    room.away("charge", 3)
    outcome = room.run("pay", randint(10, 99))
    waits = retry_waits(room.worker(), outcome.id)
    did, saw = (
        "sent pay, with the service away for 3 calls",
        f"it waited {', '.join(f'{wait:g}' for wait in waits) or 'not at all'} s",
    )
    if not waits:
        raise Wrong(did, saw, "a retry has a countdown, in seconds")
    if max(waits) - min(waits) < 0.01:
        raise Wrong(
            did, saw, "each wait is the same. self.request.retries is 0 in the first run, then 1, 2, …"
        )
    if [round(wait, 2) for wait in waits] != [0.1, 0.2, 0.4]:
        raise Wrong(did, saw, "0.1, 0.2, 0.4 are right: 0.1 * 2 ** self.request.retries")
