from random import randint

from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    room.away("charge", 99)
    outcome = room.run("pay", randint(10, 99))
    did = "sent pay, with the service away for ever"
    if outcome.state == "SUCCESS":
        raise Wrong(did, str(outcome), "nothing was charged: whoever waits must see a failure")
    if len(outcome.runs) != 3:
        raise Wrong(did, f"{len(outcome.runs)} runs", "2 retries are 3 runs: max_retries stays as it was")
    if "Unavailable" not in outcome.error:
        raise Wrong(
            did,
            f"its error is {outcome.error}",
            "this does not say what was wrong: give the cause to self.retry(exc=…)",
        )


def task_2(room: Room) -> None:
    order = randint(100, 199)
    room.away("charge", 99)
    room.run("pay", order)
    told = room.wait("the note", lambda: room.effects("gave up"), 0.5) or []
    did = "sent pay, with the service away for ever"
    if len(told) > 1:
        raise Wrong(
            did,
            f"it was noted {len(told)} times",
            "once, when it gives up: on_failure is not called at a retry",
        )
    if not told:
        means = "on_failure is called when it has failed for good: say it there, and keep the base class"
        raise Wrong(did, "nothing was noted", means)
    if told[0].get("order") != order:
        raise Wrong(
            did,
            f"what was noted as order: {told[0].get('order')!r}",
            "on_failure gets the arguments of the task as args",
        )
    room.away("charge", 1)
    room.run("pay", order)
    if room.effects("gave up"):
        raise Wrong(
            "sent pay, with the service away for one call",
            "it was noted that it gave up",
            "it went well at the second try",
        )
