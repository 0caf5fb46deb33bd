"""Rules on what the app has registered: its tasks, its routes, its schedule."""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

from doctor.effective import Settings, place_of_task
from doctor.findings import Finding, Place

OFTEN = 3600.0  # seconds: an entry that comes at least hourly leaves a backlog within a day


def async_tasks(settings: Settings) -> Iterator[Finding]:
    """Find `async def` tasks whose class calls them as Celery does."""
    from celery.app.task import Task

    if settings.pool not in ("prefork", "processes", "threads", "solo"):  # another may await
        return
    for task in settings.loaded.tasks.values():
        if inspect.iscoroutinefunction(task.run) and type(task).__call__ is Task.__call__:
            what = f"{task.name} is `async def`, and its task class does not await."
            yield Finding("async-task", what, place_of_task(task))


# --- routes ---------------------------------------------------------------------------------------------


def routes_that_match_nothing(settings: Settings) -> Iterator[Finding]:
    """Find routes for a module of tasks that have other names, and misspelled names.

    A route for tasks of another program is none: so the pattern must name a module that is loaded here, or
    be nearly the name of a task or module that is.
    """
    names = settings.loaded.tasks
    modules = {task.__module__ for task in names.values()}
    for pattern, _ in _routes(settings.conf.task_routes):
        if any(fnmatchcase(name, pattern) for name in names):
            continue
        literal = pattern.partition("*")[0].rstrip(".")
        own = [name for name, task in names.items() if task.__module__ == literal]
        near = difflib.get_close_matches(literal, modules if "*" in pattern else names, n=1, cutoff=0.9)
        if own:
            what = f"The route {pattern!r} matches no task: those of {literal} are named {own[0]} and so on."
        elif near and literal not in modules:
            what = f"The route {pattern!r} matches no task. Did you mean {pattern.replace(literal, near[0])!r}?"
        else:
            continue
        yield Finding("route-matches-nothing", what, _place(settings, pattern, "task_routes"))


def routes_to_unknown_queues(settings: Settings) -> Iterator[Finding]:
    """Find routes and entries of the schedule whose queue the app neither has nor makes."""
    conf = settings.conf
    if conf.task_create_missing_queues:
        return
    known = set(settings.loaded.app.amqp.queues)
    targets = [(pattern, _queue_of(route), "task_routes") for pattern, route in _routes(conf.task_routes)]
    targets += [
        (name, _queue_of(_options(entry)), "beat_schedule") for name, entry in _entries(conf.beat_schedule)
    ]
    for name, queue, setting in targets:
        if queue and queue not in known:
            what = f"{name!r} goes to the queue {queue!r}, which task_queues does not have."
            yield Finding("route-to-unknown-queue", what, _place(settings, name, setting))


def _routes(routes: Any) -> Iterator[tuple[str, Any]]:
    """Give pattern and route of each entry that has a text as pattern. Functions are asked by Celery alone."""
    for one in [routes] if isinstance(routes, Mapping) else routes or ():
        match one:
            case Mapping():
                yield from ((pattern, route) for pattern, route in one.items() if isinstance(pattern, str))
            case (str(pattern), route):
                yield pattern, route


def _queue_of(route: Any) -> str:
    queue = route.get("queue") if isinstance(route, Mapping) else route
    return queue if isinstance(queue, str) else ""


# --- schedule -------------------------------------------------------------------------------------------


def entries_with_unknown_task(settings: Settings) -> Iterator[Finding]:
    """Find entries of the schedule whose task does not exist here, though its module is loaded."""
    names = settings.loaded.tasks
    modules = {task.__module__ for task in names.values()}
    for name, entry in _entries(settings.conf.beat_schedule):
        task = _value(entry, "task")
        if not isinstance(task, str) or task in settings.loaded.app.tasks:
            continue
        near = difflib.get_close_matches(task, names, n=1, cutoff=0.85)
        if near or task.rpartition(".")[0] in modules:
            hint = f" Did you mean {near[0]}?" if near else ""
            what = f"The entry {name!r} sends {task!r}, and no task has this name.{hint}"
            yield Finding("beat-unknown-task", what, _place(settings, name, "beat_schedule"))


def entries_without_expires(settings: Settings) -> Iterator[Finding]:
    """Find entries that come at least hourly and never expire."""
    hit = []
    for name, entry in _entries(settings.conf.beat_schedule):
        task = settings.loaded.app.tasks.get(_value(entry, "task"))
        has_one = _options(entry).get("expires") is not None or getattr(task, "expires", None) is not None
        seconds = _period(_value(entry, "schedule"))
        if not has_one and seconds is not None and seconds <= OFTEN:
            hit.append(name)
    if hit:
        more = f" and {len(hit) - 3} more" if len(hit) > 3 else ""
        what = f"No expires in {', '.join(map(str, hit[:3]))}{more}."
        yield Finding("beat-no-expires", what, _place(settings, hit[0], "beat_schedule"))


def _entries(schedule: Any) -> list[tuple[str, Any]]:
    return list(schedule.items()) if isinstance(schedule, Mapping) else []


def _value(entry: Any, name: str) -> Any:
    return entry.get(name) if isinstance(entry, Mapping) else getattr(entry, name, None)


def _options(entry: Any) -> Mapping[str, Any]:
    return _value(entry, "options") or {}


def _period(schedule: Any) -> float | None:
    """Return the seconds between two ticks; None for what comes at other times than regular ones."""
    from celery.schedules import crontab

    if isinstance(schedule, timedelta):
        return schedule.total_seconds()
    if isinstance(schedule, int | float):
        return float(schedule)
    if isinstance(schedule, crontab):
        every_day = len(schedule.day_of_week) == 7 and len(schedule.day_of_month) == 31
        ticks = len(schedule.minute) * len(schedule.hour)
        return 86_400 / ticks if every_day else None
    run_every = getattr(schedule, "run_every", None)
    return run_every.total_seconds() if isinstance(run_every, timedelta) else None


def _place(settings: Settings, key: str, setting: str) -> Place:
    found = settings.loaded.sources.where_set({str(key)})
    return found or settings.place(setting)


REGISTRY_RULES: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    async_tasks,
    routes_that_match_nothing,
    routes_to_unknown_queues,
    entries_with_unknown_task,
    entries_without_expires,
)
