from celery.app.routes import Router, prepare

from celery_app import app
from lab.workshop.room import Room, Wrong


def queue_of(room: Room, name: str) -> str:
    routes = prepare((room.look("ROUTES"),))
    found = Router(routes, app.amqp.queues, app=app).route({}, name)
    name = str(found["queue"].name)
    return "the default queue" if name == app.conf.task_default_queue else name


def task_1(room: Room) -> None:
    name = room.task("pack")
    if (queue := queue_of(room, name)) != "advanced":
        raise Wrong(
            f"routed the task {name}",
            f"it goes to {queue}",
            "the first pattern that matches its name is taken",
        )


def task_2(room: Room) -> None:
    if (name := room.task("print_label")) != "labels.print":
        raise Wrong(
            "looked at print_label", f"its name is {name}", "the name stays: other programs send it by name"
        )
    if (queue := queue_of(room, name)) != "realworld":
        means = "the pattern must match the name of the task, not the name of its function or module"
        raise Wrong(f"routed the task {name}", f"it goes to {queue}", means)


def task_3(room: Room) -> None:
    for name in ("other.pack", "labels.delete", "celery.ping"):
        if (queue := queue_of(room, name)) != "the default queue":
            raise Wrong(f"routed a task {name}", f"it goes to {queue}", "a pattern is too wide")
