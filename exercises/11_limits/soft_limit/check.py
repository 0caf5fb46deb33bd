from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    rows = ["1", "2", "3.......................", "4", "5......................."]
    if (limit := room.option("export", "soft_time_limit")) != 1:
        raise Wrong("read soft_time_limit", f"it is {limit}", "1 second is asked for: the limit stays")
    outcome = room.run("export", rows, seconds=8)
    did = "sent an export whose third row takes 2.3 s, and the fifth too"
    if "TimeLimitExceeded" in outcome.error and "Soft" not in outcome.error:
        means = (
            "the soft limit was taken for a bad row, and the export went on until the hard limit killed it"
        )
        raise Wrong(did, str(outcome), means)
    if "SoftTimeLimitExceeded" in outcome.error:
        raise Wrong(did, outcome.error, "nobody caught it: return what is done so far")
    if outcome.value != {"rows": 2, "complete": False}:
        means = "two rows were done when time was up, and it is not complete"
        if max((run.ran or 0 for run in outcome.runs), default=0) > 2:
            means = "the export went on after the soft limit: its error was taken for a bad row"
        raise Wrong(did, str(outcome), means)


def task_2(room: Room) -> None:
    value = room.value("export", ["1", "two", "3", "four", "5"])
    if not isinstance(value, dict) or value.get("rows") != 3:
        raise Wrong(
            "sent an export of 5 rows, 2 of them bad",
            f"it returned {value!r}",
            "bad rows raise ValueError: leave them out, and count the others",
        )


def task_3(room: Room) -> None:
    for bad in ([], ["two"]):
        value = room.value("export", ["1", *bad, "2", "3"])
        if value != {"rows": 3, "complete": True}:
            did = f"sent an export of 3 good rows and {len(bad)} bad ones"
            raise Wrong(did, f"it returned {value!r}", "it was in time: complete is True")
