from itertools import pairwise
from random import sample

from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    names = room.kept["names"] = sample(["a.txt", "b.txt", "c.txt", "d.txt", "e.txt", "f.txt"], 5)
    room.worker(["basic"], "one", concurrency=2)
    room.worker(["basic"], "two", concurrency=2)
    room.kept["result"] = room.start("copy_files", room.kept["names"])
    room.wait("it ends", room.kept["result"].ready, 12)
    room.wait("a second delivery ends", lambda: len(room.effects("copy")) > 6, 0.5)
    copied = [effect["name"] for effect in room.effects("copy")]
    did = f"sent copy_files of {len(names)} files, with two workers and a visibility timeout of 3 s"
    if len(copied) != len(set(copied)) or any(run.redelivered for run in room.runs()):
        means = (
            "the message was delivered again while its task ran: make tasks that are shorter than the timeout"
        )
        raise Wrong(did, f"{len(copied)} files were copied", means)
    if (longest := max((run.ran or 0 for run in room.runs()), default=0)) > 3:
        means = "this is longer than the timeout. Acknowledged early, the message is lost in a crash"
        raise Wrong(did, f"a task ran for {longest:.1f} s", means)


def task_2(room: Room) -> None:
    names, result = room.kept["names"], room.kept["result"]
    copied = [effect["name"] for effect in room.effects("copy")]
    did = f"sent copy_files({names})"
    moments = [effect["at"] for effect in room.effects("copy")]
    # A copy takes 0.8 s: two that end at nearly the same time were made at the same time.
    at_once = any(later - earlier < 0.4 for earlier, later in pairwise(moments))
    if copied != names or at_once:
        saw = f"copied {copied}" + (", some at the same time" if at_once else "")
        raise Wrong(did, saw, "one after the other, in this order: a group has no order")
    if result.state != "SUCCESS" or result.result != len(names):
        saw = f"{result.state}, {result.result!r}"
        raise Wrong(did, saw, f"the result of the canvas is the number of files, {len(names)}")
