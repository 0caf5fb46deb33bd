from random import randint

from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    rows = [randint(10, 99) for _ in range(randint(4, 6))]
    listener = room.listen()
    outcome = room.run("import_rows", rows)
    own = [
        meta for meta in room.stored(listener, outcome.id) if meta["status"] not in ("STARTED", outcome.state)
    ]
    did, saw = (
        f"sent import_rows with {len(rows)} rows",
        f"its states were {[meta['status'] for meta in own]}",
    )
    if not own:
        raise Wrong(did, saw, "it stores no state of its own: self.update_state(state=…, meta=…)")
    if {meta["status"] for meta in own} != {"PROGRESS"}:
        raise Wrong(did, saw, "the page that shows it looks for the state PROGRESS")
    numbers = [meta["result"] for meta in own]
    if any(not isinstance(meta, dict) or set(meta) < {"current", "total"} for meta in numbers):
        raise Wrong(did, f"the numbers were {numbers}", "the page needs current and total")
    if [meta["current"] for meta in numbers] != list(range(1, len(rows) + 1)):
        saw = f"current was {[meta['current'] for meta in numbers]}"
        raise Wrong(did, saw, "after each row, current is the number of rows that are done")
    if {meta["total"] for meta in numbers} != {len(rows)}:
        saw = f"total was {sorted({meta['total'] for meta in numbers})}"
        raise Wrong(did, saw, f"total is how many rows there are: {len(rows)}")


def task_2(room: Room) -> None:
    rows = [randint(10, 99) for _ in range(5)]
    outcome = room.run("import_rows", rows)
    if outcome.state != "SUCCESS" or outcome.value != sum(rows):
        raise Wrong(
            f"sent import_rows({rows})", str(outcome), f"the result is the sum, {sum(rows)}: return it"
        )
