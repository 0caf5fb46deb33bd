from random import choice, randint

from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    room.worker()
    article = "x" * randint(3, 12)
    value = room.call("price_of", article)
    if value != 100 * len(article) or not room.runs(name="look_up"):
        means = "send the task with .delay(), and wait for its result with .get()"
        if value == 100 * len(article):
            means = "no worker was asked: look_up(…) runs the function here"
        raise Wrong(f"called price_of({article!r}) with a worker", f"it returned {value!r}", means)


def task_2(room: Room) -> None:
    room.end_worker()
    value = room.call("price_of", choice(["tea", "salt", "rice"]), seconds=2.5)
    if value is not None:
        raise Wrong("called price_of with no worker", f"it returned {value!r}", "nobody computed this price")
    if not room.tasks or not room.calls() & {"delay", "apply_async", "s", "si", "send_task"}:
        raise Wrong("called price_of with no worker", "it sent nothing", "send the task first, then wait")


def task_3(room: Room) -> None:
    room.worker()
    if (error := room.try_call("price_of", "")) != "ValueError":
        means = "get() raises what the task raised. Catch only the error of the time limit"
        saw = f"it raised {error or 'nothing'}, and the task raised ValueError"
        raise Wrong("called price_of('')", saw, means)
