from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    room.away("stock_of", 1)
    for shop, right in (("north", None), ("east", 4)):
        outcome = room.run("count_stock", shop)
        did = f"sent count_stock({shop!r}), {'with the shop away' if right is None else 'and it answers'}"
        if outcome.value != (expected := {"shop": shop, "count": right}):
            means = (
                f"{expected} is right: a result for every shop"
                if outcome.state == "SUCCESS"
                else "the task failed, and the report with it: catch Unavailable"
            )
            raise Wrong(did, str(outcome), means)


def task_2(room: Room) -> None:
    room.away("stock_of", 0)
    room.worker()
    counts = [{"shop": "north", "count": None}, {"shop": "east", "count": 9}, {"shop": "south", "count": 0}]
    value, right = room.value("report", counts), {"sum": 9, "missing": ["north"]}
    if value == right | {"missing": ["north", "south"]}:
        means = "south has answered, and has 0 pieces: it is not missing. None is not 0"
        raise Wrong(f"sent report({counts})", f"it returned {value!r}", means)
    if value != right:
        raise Wrong(f"sent report({counts})", f"it returned {value!r}", f"{right} is right")
    room.away("stock_of", 1)
    outcome = room.outcome("sent report_chord", room.start("report_chord", ["tea", "rice"]))
    if not isinstance(outcome.value, dict) or len(outcome.value.get("missing", [])) != 1:
        raise Wrong(
            "sent report_chord of two shops, one of them away",
            str(outcome),
            "one shop is missing in the report",
        )


def task_3(room: Room) -> None:
    room.away("stock_of", 0)
    outcome = room.run("count_stock", "")
    if "Refused" not in outcome.error:
        means = (
            "a shop without a name is refused: this error must not be hidden. Name the errors that you catch"
        )
        raise Wrong("sent count_stock('')", str(outcome), means)
