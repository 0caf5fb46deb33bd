"""Rules on the settings, and on what each task makes of them."""

import ast
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from doctor.effective import Settings, place_of_task
from doctor.findings import Finding, Place
from doctor.unknown_settings import unknown_settings

PICKLES = {"pickle", "application/x-python-serialize"}
KNOWN_PASSWORDS = {"guest", "password", "changeme", "admin", "secret", "postgres"}
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
DEFAULT_STEPS = (0, 3, 6, 9)

# --- one setting ----------------------------------------------------------------------------------------


def no_broker(settings: Settings) -> Iterator[Finding]:
    """Find an app that nobody has told where its broker is."""
    conf = settings.conf
    named = ("broker_url", "broker_read_url", "broker_write_url", "broker_transport", "broker_host")
    if not any(getattr(conf, name, None) for name in named):
        yield Finding("no-broker-setting", "No setting names the broker.", Place("setting broker_url"))


def pickle_accepted(settings: Settings) -> Iterator[Finding]:
    """Find pickle among the content that is accepted."""
    for name in ("accept_content", "result_accept_content"):
        accepted = set(settings.conf.get(name) or ()) & PICKLES
        if accepted:
            what = f"{name} allows {', '.join(sorted(accepted))}."
            yield Finding("pickle-accepted", what, settings.place(name))


def unknown_time_zone(settings: Settings) -> Iterator[Finding]:
    """Find a time zone that does not exist."""
    name = settings.conf.timezone
    if isinstance(name, str) and name:
        try:
            ZoneInfo(name)
        except (LookupError, ValueError, OSError):
            yield Finding("unknown-time-zone", f"There is no time zone {name!r}.", settings.place("timezone"))


def always_eager(settings: Settings) -> Iterator[Finding]:
    """Find the eager mode."""
    if settings.conf.task_always_eager:
        yield Finding("always-eager", "task_always_eager is on.", settings.place("task_always_eager"))


def results_never_expire(settings: Settings) -> Iterator[Finding]:
    """Find results that are kept for ever. Celery's own default is one day."""
    if not settings.has_backend or settings.conf.task_ignore_result:
        return
    if settings.conf.result_expires in (None, 0, timedelta(0)):
        what = f"result_expires is {settings.conf.result_expires!r}: results stay."
        yield Finding("results-never-expire", what, settings.place("result_expires"))


def cancel_on_connection_loss(settings: Settings) -> Iterator[Finding]:
    """Find late acknowledgement with tasks that are cancelled when the connection is lost."""
    name = "worker_cancel_long_running_tasks_on_connection_loss"
    late = [task.name for task in settings.loaded.tasks.values() if task.acks_late]
    if settings.is_redis and settings.conf.get(name) and late:
        what = f"{name} is on, and {_some(late)} acknowledged late."
        yield Finding("cancel-on-connection-loss", what, settings.place(name))


def slow_failure(settings: Settings) -> Iterator[Finding]:
    """Find a sender that nothing tells to give up."""
    missing = []
    if settings.is_redis and "socket_timeout" not in settings.options:
        missing.append("socket_timeout in broker_transport_options")
    is_redis_backend = "redis" in type(settings.loaded.app.backend).__module__
    if is_redis_backend and "retry_policy" not in (settings.conf.result_backend_transport_options or {}):
        missing.append("retry_policy in result_backend_transport_options")
    if missing:
        place = settings.place("broker_transport_options")
        yield Finding("slow-failure", f"Not set: {', and '.join(missing)}.", place)


def merged_priorities(settings: Settings) -> Iterator[Finding]:
    """Find two priorities in use that lie in one list of Redis."""
    steps = sorted(settings.options.get("priority_steps", DEFAULT_STEPS))
    if not settings.is_redis or not steps:
        return
    default = settings.conf.task_default_priority or 0
    used = {default if task.priority is None else task.priority for task in settings.loaded.tasks.values()}
    lists: dict[int, list[int]] = {}
    for priority in sorted(one for one in used if isinstance(one, int)):
        step = max([step for step in steps if step <= priority], default=steps[0])
        lists.setdefault(step, []).append(priority)
    for together in lists.values():
        if len(together) > 1:
            what = f"Tasks have the priorities {', '.join(map(str, together))}, which share one list."
            yield Finding("merged-priorities", what, settings.place("broker_transport_options"))


# --- passwords ------------------------------------------------------------------------------------------


def default_password(settings: Settings) -> Iterator[Finding]:
    """Find a password that everybody tries first, for a server that others can reach; and for Flower."""
    for name in ("broker_url", "result_backend"):
        urls = getattr(settings.conf, name) or ()
        for url in [urls] if isinstance(urls, str) else urls:
            for part in str(url).split(";"):
                if host := _host_with_known_password(part):
                    what = f"{name} has a default password for {host}."
                    yield Finding("default-password", what, settings.place(name))
    if _is_known_login(os.environ.get("FLOWER_BASIC_AUTH", "")):
        place = Place("environment FLOWER_BASIC_AUTH")
        yield Finding("default-password", "Flower has a default password.", place)
    yield from _in_flower_file(Path("flowerconfig.py"))


def _host_with_known_password(url: str) -> str:
    try:
        parts = urlsplit(url.removeprefix("db+").removeprefix("cache+"))
        password, host = unquote(parts.password or ""), parts.hostname or ""
    except ValueError:
        return ""
    return host if password in KNOWN_PASSWORDS and host not in LOOPBACK else ""


def _is_known_login(logins: str) -> bool:
    return any(login.partition(":")[2] in KNOWN_PASSWORDS for login in logins.split(","))


def _in_flower_file(path: Path) -> Iterator[Finding]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="basic_auth")], value=value):
                texts = [one.value for one in ast.walk(value) if isinstance(one, ast.Constant)]
                if any(_is_known_login(text) for text in texts if isinstance(text, str)):
                    place = Place(path=path.resolve(), line=node.lineno)
                    yield Finding("default-password", "Flower has a default password.", place)


# --- what each task makes of them -----------------------------------------------------------------------


def endless_redelivery(settings: Settings) -> Iterator[Finding]:
    """Find late acknowledgement with rejection when the pool child is lost, without a bound."""
    if not settings.is_redis:  # a quorum queue of RabbitMQ counts the deliveries
        return
    hit = [
        task
        for task in settings.loaded.tasks.values()
        if task.acks_late and task.reject_on_worker_lost
        # Newer: retried first, and when max_retries is reached, not rejected any more.
        and not (getattr(task, "retry_on_worker_lost", None) and task.max_retries is not None)
    ]
    what = "late acknowledgement and reject_on_worker_lost."
    yield from _by_setting_or_task(settings, "endless-redelivery", "task_reject_on_worker_lost", hit, what)


def limit_beyond_visibility(settings: Settings) -> Iterator[Finding]:
    """Find late acknowledgement with a time limit that is longer than the visibility timeout."""
    timeout = settings.visibility_timeout
    if timeout is None or settings.pool == "threads":
        return
    for name in ("task_time_limit", "task_soft_time_limit"):
        attribute = name.removeprefix("task_")
        hit = [
            task
            for task in settings.loaded.tasks.values()
            if task.acks_late and (_limit(settings, task, attribute) or 0) > timeout
            and (name == "task_time_limit" or not _limit(settings, task, "time_limit"))
        ]
        what = f"late acknowledgement, and {attribute} is longer than the visibility timeout, {timeout:g} s."
        yield from _by_setting_or_task(settings, "limit-beyond-visibility", name, hit, what)


def limit_order(settings: Settings) -> Iterator[Finding]:
    """Find a soft limit that is not shorter than the hard one."""
    hit = []
    for task in settings.loaded.tasks.values():
        soft, hard = _limit(settings, task, "soft_time_limit"), _limit(settings, task, "time_limit")
        if soft and hard and soft >= hard:
            hit.append(task)
    what = "a soft time limit that is not shorter than the hard one."
    yield from _by_setting_or_task(settings, "limit-order", "task_soft_time_limit", hit, what)


def limit_without_effect(settings: Settings) -> Iterator[Finding]:
    """Find time limits with a pool that does not apply them."""
    ignored = {"threads": ("time_limit", "soft_time_limit"), "solo": ("time_limit", "soft_time_limit")}
    names = ignored.get(settings.pool, ())
    hit = [task for task in settings.loaded.tasks.values() if any(_limit(settings, task, name) for name in names)]
    if hit:
        what = f"The pool is {settings.pool}, and {_some([task.name for task in hit])} limited in time."
        yield Finding("limit-without-effect", what, settings.place("worker_pool"))


def no_time_limit(settings: Settings) -> Iterator[Finding]:
    """Find tasks that no limit ends, in a pool that could."""
    free = [
        task.name
        for task in settings.loaded.tasks.values()
        if not _limit(settings, task, "time_limit") and not _limit(settings, task, "soft_time_limit")
    ]
    if free and settings.pool in ("prefork", "processes"):
        what = f"No time limit in the settings: {_some(free)} not limited."
        yield Finding("no-time-limit", what, Place("setting task_time_limit"))


def _limit(settings: Settings, task: Any, name: str) -> float | None:
    own = getattr(task, name)
    return settings.conf.get(f"task_{name}") if own is None else own


def _by_setting_or_task(
    settings: Settings, rule: str, name: str, tasks: list[Any], what: str
) -> Iterator[Finding]:
    """Give one finding for the setting, if it is what these tasks have, else one for each task."""
    value, attribute = settings.conf.get(name), name.removeprefix("task_")
    by_setting = [task for task in tasks if value and getattr(task, attribute) in (None, value)]
    if by_setting:
        names = _some([task.name for task in by_setting]).removesuffix(" are").removesuffix(" is")
        yield Finding(rule, f"{names}: {what}", settings.place(name))
    for task in tasks:
        if task not in by_setting:
            yield Finding(rule, f"{task.name}: {what}", place_of_task(task))


def _some(names: list[str]) -> str:
    """Name the first two of several, and how many more there are."""
    names = sorted(names)
    if len(names) == 1:
        return f"{names[0]} is"
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"{', '.join(names[:2])}{more} are"


SETTING_RULES: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    no_broker,
    unknown_settings,
    pickle_accepted,
    default_password,
    unknown_time_zone,
    always_eager,
    endless_redelivery,
    limit_beyond_visibility,
    limit_order,
    limit_without_effect,
    no_time_limit,
    cancel_on_connection_loss,
    results_never_expire,
    merged_priorities,
    slow_failure,
)
