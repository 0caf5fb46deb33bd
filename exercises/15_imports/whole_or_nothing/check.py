import os
import signal
from functools import partial

from lab.workshop.room import Room, Wrong


def has_lines(room: Room, count: int) -> bool:
    return len(room.effects("line")) >= count


def task_1(room: Room) -> None:
    path = room.folder / "data" / "report.txt"
    path.write_text("the report from before\n")
    room.worker(profile="reliable")
    room.send("write_report", "monday")
    seen = set()
    for count in (1, 3):
        room.wait("lines are written", partial(has_lines, room, count))
        seen.add(path.read_text() if path.exists() else "no file")
    if not has_lines(room, 3):
        raise Wrong(
            "sent write_report", f"it told of {len(room.effects('line'))} lines", "keep the line with note(…)"
        )
    os.kill(room.effects("line")[0]["pid"], signal.SIGKILL)
    room.end_worker()
    seen.add(path.read_text() if path.exists() else "no file")
    if seen - {"the report from before\n"} and not all(text.count("monday") in (0, 12) for text in seen):
        half = next(text for text in seen if text.count("monday") not in (0, 12))
        means = "it grows under its own name: write to another file, and give it the name at the end"
        raise Wrong(
            "sent write_report, and killed its process in the middle",
            f"report.txt has {half.count('monday')} of 12 lines",
            means,
        )
    if seen != {"the report from before\n"}:
        raise Wrong(
            "sent write_report, and killed its process in the middle",
            f"report.txt was {sorted(seen)}",
            "until the new report is whole, the one from before must be there",
        )


def task_2(room: Room) -> None:
    for path in (room.folder / "data").iterdir():
        path.unlink()
    path = room.folder / "data" / "report.txt"
    path.write_text("the report from before\n")
    with path.open() as reader:  # whoever reads it meanwhile
        room.value("write_report", "tuesday")
        read = reader.read()
    files = sorted(path.name for path in (room.folder / "data").iterdir())
    if files != ["report.txt"]:
        raise Wrong(
            "sent write_report('tuesday')", f"the files are {', '.join(files)}", "a draft must not stay"
        )
    if path.read_text().count("tuesday line") != 12:
        raise Wrong("sent write_report('tuesday')", "report.txt is not whole", "all 12 lines belong into it")
    if "tuesday" in read:
        means = "a copy is written line by line, too: give the finished file the name, by os.replace"
        raise Wrong("sent write_report('tuesday')", "the old file itself was written over", means)
