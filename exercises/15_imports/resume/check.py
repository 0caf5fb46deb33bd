import os
import signal
import sqlite3

from lab.workshop.room import Room, Wrong


def run_twice(room: Room) -> tuple[list[int], int, object]:
    """Kill the first run after some parts, and let a second one run. Return the rows, and what they did."""
    if "rows" not in room.kept:
        room.worker(profile="reliable")
        result = room.send("import_rows", "monday", 95)
        room.wait("four parts", lambda: result.ready() or len(room.effects("part")) >= 4)
        if result.state == "FAILURE":
            raise Wrong("sent import_rows('monday', 95)", repr(result.result), "the task failed")
        if len(room.effects("part")) < 4:
            raise Wrong(
                "sent import_rows('monday', 95)",
                f"it said {len(room.effects('part'))} parts",
                "keep the line with note(…)",
            )
        os.kill(room.effects("part")[0]["pid"], signal.SIGKILL)
        parts = len(room.effects("part"))
        # By the retry after a lost process, or by us: the message comes again.
        outcome = room.outcome("let it run again", result, 20)
        database = sqlite3.connect(room.folder / "state" / "import.sqlite")
        rows = [number for (number,) in database.execute("SELECT number FROM rows ORDER BY number")]
        room.kept["done"] = [done for (done,) in database.execute("SELECT rows FROM done")]
        room.kept |= {"rows": rows, "parts": parts, "outcome": outcome}
    return room.kept["rows"], room.kept["parts"], room.kept["outcome"]


DID = "sent import_rows('monday', 95), killed its process after 4 parts, and let the message come again"


def task_1(room: Room) -> None:
    rows, _, outcome = run_twice(room)
    if rows == list(range(95)):
        return
    twice = len(rows) - len(set(rows))
    missing = 95 - len(set(rows))
    means = "rows and the number of them must be written in one transaction: both or none"
    if twice >= 40:
        means = "the second run imported again what the first one had: note how far it is, with the rows"
    elif (done := room.kept["done"]) not in ([], [95]):
        means = (
            f"the table done says {done[0]} at the end, and 95 is right: the row where the next run begins"
        )
    raise Wrong(DID, f"{twice} rows are there twice, {missing} are missing; {outcome}", means)


def task_2(room: Room) -> None:
    _, parts, _ = run_twice(room)
    did_again = [effect["first"] for effect in room.effects("part")[parts:]]
    if 0 in did_again:
        raise Wrong(DID, "the second run began at row 0", "read from the table done where the first one was")
