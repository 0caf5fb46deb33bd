from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    rows = ["1", "2", "3.......................", "4", "5......................."]
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
        means = "two rows were done when time was up"
        if outcome.value and outcome.value.get("rows", 0) > 2:
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
    value = room.value("export", ["1", "2", "3"])
    if value != {"rows": 3, "complete": True}:
        raise Wrong(
            "sent an export of 3 good rows", f"it returned {value!r}", "it was in time: complete is True"
        )
