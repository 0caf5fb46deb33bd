from random import randint

from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    pence = 4 * randint(20, 90)
    listener = room.listen()
    room.away("convert", 2)
    outcome = room.run("price_in", pence, "EUR")
    room.wait("the service answers", lambda: room.effects("convert"), 1)
    states = [meta["status"] for meta in room.stored(listener, outcome.id)]
    did = "sent price_in, with the service away for the first 2 calls"
    saw = f"its states were {', '.join(states)}, and its result {outcome.value!r}"
    if "RETRY" not in states and len(room.effects()) > 1:
        raise Wrong(
            did,
            saw,
            "the retry was sent, and its exception caught: SUCCESS was stored before the work was done",
        )
    if outcome.value != pence * 5 // 4:
        raise Wrong(did, saw, f"{pence * 5 // 4} is right: try again while the service is away")


def task_2(room: Room) -> None:
    room.away("convert", 0)
    outcome = room.run("price_in", 100, "XXX")
    runs = len(room.runs(outcome.id))
    did = "sent price_in with a currency that does not exist"
    if runs > 1 or outcome.state == "RETRY":
        raise Wrong(did, f"{runs} runs", "the service will refuse it again: a retry only costs time")
    if outcome.state != "SUCCESS" or outcome.value is not None:
        raise Wrong(did, str(outcome), "None is right: this error is expected, and has a name")
    if room.effects("away"):
        raise Wrong(did, "the service was away", "try once more")
    if len(room.effects()) > 0:
        raise Wrong(did, "the service has converted it", "this currency does not exist")
    room.away("convert", 0)
    broken = room.run("price_in", "ten", "EUR")
    if broken.state != "FAILURE":
        raise Wrong(
            "sent price_in with a text as the price",
            str(broken),
            "a mistake in our own program is hidden: name the errors that you catch",
        )
