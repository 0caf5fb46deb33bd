from lab.workshop.room import Room, Wrong


def run(room: Room, shops: list[str]) -> str:
    room.worker()
    (room.folder / "effects").unlink(missing_ok=True)
    before = count_ended(room)
    result = room.start("report_chord", shops)
    room.wait("it ends", lambda: room.effects() and (result.ready() or room.effects("alarm")), 2)
    room.wait("all shops have ended", lambda: count_ended(room) >= before + len(shops), 1)
    return f"sent report_chord({shops})"


def count_ended(room: Room) -> int:
    return sum(run.ended is not None for run in room.runs(name="count_stock"))


def task_1(room: Room) -> None:
    did = run(room, ["north", "closed", "south"])
    alarms = [effect["text"] for effect in room.effects("alarm")]
    if room.effects("report"):
        raise Wrong(did, "a report was made", "it lacks a shop, and does not say so")
    if not alarms:
        raise Wrong(
            did,
            "no report, and no alarm",
            "the body never runs when a member of the header fails: its error callback is called, "
            "by Celery with three arguments. .on_error(…) names it, as a plain signature",
        )
    if len(alarms) > 1:
        raise Wrong(did, f"{len(alarms)} alarms", "one failure, one alarm: the callback stands in two places")


def task_2(room: Room) -> None:
    shops = ["north", "east", "southwest"]
    did = run(room, shops)
    done = [effect["what"] for effect in room.effects()]
    if done != ["report"] or sorted(room.effects("report")[0]["counts"]) != sorted(
        11 * len(shop) for shop in shops
    ):
        saw = f"what was done: {', '.join(done) or 'nothing'}"
        raise Wrong(did, saw, "all shops are in the report, once, and nobody is alarmed")
