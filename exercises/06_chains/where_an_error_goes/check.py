from random import randint

from lab.workshop.room import Room, Wrong


def run(room: Room, order: int) -> None:
    room.worker()
    (room.folder / "effects").unlink(missing_ok=True)
    room.wait_for(room.start("order_chain", order), 2)


def has_callback(room: Room, order: int) -> bool:
    """Tell whether the chain, or its first step, names somebody for its errors."""
    chain = room.call("order_chain", order)
    return any(part["options"].get("link_error") for part in (chain, *chain["kwargs"].get("tasks", [])[:1]))


def task_1(room: Room) -> None:
    order = randint(501, 999)
    run(room, order)
    did = f"sent order_chain({order}), an order that does not exist"
    room.wait("the alarm", lambda: room.effects("alarm"), 1)
    alarms = [effect["text"] for effect in room.effects("alarm")]
    if len(alarms) > 1:
        raise Wrong(
            did, f"{len(alarms)} alarms", "both the chain and the step have the callback: one is enough"
        )
    if room.effects("ship") or not any(run.outcome == "failed" for run in room.runs(name="reserve")):
        raise Wrong(
            did, "reserve did not fail", "its error tells whoever waits: let it pass, and say who is told"
        )
    if not alarms and has_callback(room, order):
        means = "Celery calls it with request, exc, traceback: give it a plain signature, alarm.s()"
        raise Wrong(did, "alarm is named for the errors of reserve, and did not run", means)
    if not alarms:
        raise Wrong(did, "no alarm", "reserve has failed, and nobody was told: .on_error(…) names who is")
    if str(order) not in alarms[0]:
        raise Wrong(
            did,
            f"the alarm says {alarms[0]!r}",
            "the three arguments are given by Celery: give it a plain signature",
        )


def task_2(room: Room) -> None:
    order = randint(10, 400)
    run(room, order)
    done = [effect["what"] for effect in room.effects()]
    if done != ["ship"]:
        means = (
            "alarm is for errors only: it is no step of the chain"
            if "alarm" in done
            else "the order was not shipped"
        )
        raise Wrong(f"sent order_chain({order})", f"what was done: {', '.join(done) or 'nothing'}", means)
