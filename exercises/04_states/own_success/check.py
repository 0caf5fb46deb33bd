from random import randint

from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    outcome = room.run("add_up", [str(randint(1, 9)), "seven", "3"])
    if outcome.state == "SUCCESS":
        means = "a SUCCESS was stored, and Redis keeps it: the error of the bad row is lost"
        if "update_state" not in room.calls():
            means = (
                "the error was caught, or its row was left out: whoever waits must see that the file is bad"
            )
        raise Wrong("sent rows of which one is no number", str(outcome), means)
    if "ValueError" not in outcome.error:
        raise Wrong("sent rows of which one is no number", str(outcome), "let the ValueError pass")


def task_2(room: Room) -> None:
    rows = [randint(10, 99) for _ in range(4)]
    right = {"sum": sum(rows), "rows": len(rows)}
    outcome = room.run("add_up", list(map(str, rows)))
    if outcome.value != right:
        means = "what the task returns is thrown away if it has stored a SUCCESS before"
        if "update_state" not in room.calls():
            means = "both numbers belong into what the task returns"
        raise Wrong(f"sent the rows {rows}", str(outcome), f"{means}: {right}")
