from random import randint

from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    room.worker()
    order = randint(10, 99)
    outcome = room.outcome("called send_invoice", room.sent("send_invoice", order))
    if "never registered" in outcome.error:
        means = "no task has this name, so the worker has thrown the message away"
        raise Wrong(f"called send_invoice({order})", f"{outcome.state}: {outcome.error}", means)
    if outcome.value != f"invoice {order}":
        raise Wrong(f"called send_invoice({order})", str(outcome), "this is not what make_invoice returns")
    if room.task("make_invoice") != "exercise.make_invoice":
        raise Wrong(
            "looked at make_invoice",
            f"it is {room.task('make_invoice')}",
            "the task's name stays: others use it",
        )


def task_2(room: Room) -> None:
    for name, right in (
        ("exercise.make_invoice", True),
        ("exercise.make_invoices", False),
        ("make_invoice", False),
    ):
        if (said := room.call("is_known", name)) is not right:
            means = "app.tasks holds each task by its whole name"
            raise Wrong(f"called is_known({name!r})", f"it returned {said!r}", means)
