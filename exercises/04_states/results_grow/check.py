from lab.workshop.room import Room, Wrong
from settings import RESULT_DATABASE


def stored(room: Room, function: str, argument: object) -> bool:
    room.worker()
    result = room.send(function, argument)
    if not room.wait("it ends", lambda: [run for run in room.runs(result.id, seconds=0.1) if run.ended]):
        raise Wrong(f"sent {function}({argument!r})", "it did not end", "is the function still a task?")
    return bool(room.broker.client(RESULT_DATABASE).exists(f"celery-task-meta-{result.id}"))


def task_1(room: Room) -> None:
    if stored(room, "ping", "north"):
        raise Wrong(
            "sent ping, and looked into Redis",
            "its result is stored",
            "the task has an option to ignore its result",
        )
    if "print" in room.calls() or "forget" in room.calls():
        raise Wrong("read your file", "it calls forget()", "what is not stored need not be forgotten")


def task_2(room: Room) -> None:
    outcome = None
    if stored(room, "count", ["tea", "salt"]):
        outcome = room.run("count", ["tea", "salt", "rice"]).value
    if outcome != 3:
        raise Wrong(
            "sent count, and looked into Redis",
            f"its result is {outcome!r}, not 3",
            "this result is needed: store it",
        )
