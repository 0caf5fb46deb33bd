from typing import Any

from celery.app.routes import Router, prepare
from celery.exceptions import QueueNotFound

from celery_app import app
from lab.workshop.room import Room, Wrong


def queue_of(room: Room, name: str) -> str:
    routes = room.look("ROUTES")
    if not isinstance(routes, dict) or not all(map(is_target, routes.values())):
        means = 'it is a dictionary of patterns, each a text: {"a pattern": {"queue": "its queue"}}'
        raise Wrong("read ROUTES", repr(routes), means)
    app_of_course: Any = app  # the types of Celery know no app with a task class of its own
    try:
        found = Router(prepare((routes,)), app.amqp.queues, app=app_of_course).route({}, name)
    except QueueNotFound as error:
        raise Wrong(f"routed the task {name}", error.args[0], "there is no queue with this name") from None
    queue = str(found["queue"].name)
    return "the default queue" if queue == app.conf.task_default_queue else queue


def is_target(target: object) -> bool:
    return isinstance(target, str) or (isinstance(target, dict) and "queue" in target)


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
    for name in ("other.pack", "other.print", "labels.delete", "labels.print_all", "celery.ping"):
        if (queue := queue_of(room, name)) != "the default queue":
            raise Wrong(f"routed a task {name}", f"it goes to {queue}", "a pattern is too wide")
