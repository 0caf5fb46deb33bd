import csv
from random import randint

from lab.workshop.room import Room, Wrong


def write(room: Room, rows: list[list[str]]) -> None:
    with (room.folder / "data" / "orders.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["order", "pence"], *rows])


def task_1(room: Room) -> None:
    good = [[str(number), str(randint(100, 900))] for number in range(1, 6)]
    rows = [good[0], ["six", "100"], good[1], good[2], ["8", "much"], good[3], ["9", ""], good[4]]
    write(room, rows)
    right = {"rows": 5, "pence": sum(int(row[1]) for row in good)}
    value = room.value("import_orders", "orders.csv")
    if value != right:
        means = "a bad row counts neither as a row nor with its pence"
        if isinstance(value, dict) and value.get("rows", 0) < 5:
            means = "good rows are missing: a bad row must not stop the others"
        raise Wrong(
            "sent import_orders, with 5 good rows and 3 bad ones", f"it returned {value}, not {right}", means
        )


def task_2(room: Room) -> None:
    bad = f"x{randint(10, 99)}"
    write(room, [["1", "100"], [bad, "250"], ["3", "300"], ["4", "4.50"]])
    room.run("import_orders", "orders.csv")
    path = room.folder / "data" / "rejects.csv"
    did = f"sent a file whose lines 3 and 5 are bad: {bad},250 and 4,4.50"
    if not path.exists():
        raise Wrong(did, "there is no rejects.csv", "write the bad rows there")
    with path.open(newline="") as file:
        header, *rows = [*csv.reader(file)] or [[]]
    if header != ["line", "reason", "order", "pence"]:
        raise Wrong(
            did, f"the first line of rejects.csv is {','.join(header)!r}", "line,reason,order,pence is right"
        )
    if [(row[0], *row[2:]) for row in rows] != [("3", bad, "250"), ("5", "4", "4.50")]:
        means = "each bad row as it was, with its line in the file: the header is line 1"
        raise Wrong(did, f"its rows are {rows}", means)
    if not all(row[1].strip() for row in rows):
        raise Wrong(did, "a reason is empty", "str(error) says what is wrong")
