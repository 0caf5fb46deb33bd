"""The rule on names that Celery does not know as settings."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from doctor.effective import Settings
from doctor.findings import Finding, Place
from doctor.loading import project_texts
from doctor.source import Module, settings_in

OLD_PREFIXES = ("CELERY_", "CELERYD_", "CELERYBEAT_", "BROKER_")


def unknown_settings(settings: Settings) -> Iterator[Finding]:
    """Find names that look like settings of Celery, that it does not know, and that nobody else reads.

    A program may keep settings of its own beside Celery's, and so may a library. So a name counts only if
    it begins as Celery's settings do, and if it stands nowhere but where it is set.
    """
    names = [name for name in _names(settings) if _looks_like_one(name, settings.loaded.app.namespace)]
    unknown = [name for name in names if not _is_known(name, settings.loaded.app.namespace)]
    for name in unknown:
        place = _only_set(name, settings)
        if place:
            near = _nearest(name, settings.loaded.app.namespace)
            yield Finding("unknown-setting", f"Celery has no setting {name}.{near}", place)


def _names(settings: Settings) -> list[str]:
    """Return the names of all settings that somebody gave, as they were given."""
    maps = settings.conf.maps[:-1]  # the last one holds Celery's own defaults
    return list(dict.fromkeys(name for one in maps for name in _keys(one) if isinstance(name, str)))


def _keys(settings: Mapping[str, Any] | Any) -> Iterable[Any]:
    try:
        return list(settings.keys())
    except Exception:  # noqa: BLE001 - settings are any object of the program
        return []


def _looks_like_one(name: str, namespace: str | None) -> bool:
    from celery.app.defaults import NAMESPACES

    if namespace and name.startswith(f"{namespace.upper().rstrip('_')}_"):
        return True
    if namespace and name.isupper():
        return False
    parts = tuple(f"{part}_" for part, options in NAMESPACES.items() if isinstance(options, dict))
    return name.startswith(parts) if name.islower() else name.startswith(OLD_PREFIXES)


def _is_known(name: str, namespace: str | None) -> bool:
    from celery.app.defaults import _TO_NEW_KEY, DEFAULTS

    prefix = f"{namespace.rstrip('_')}_".upper() if namespace else ""
    bare = name.removeprefix(prefix).lower()
    return name in _TO_NEW_KEY or name in DEFAULTS or (bool(prefix) and (bare in DEFAULTS or bare.upper() in _TO_NEW_KEY))


def _nearest(name: str, namespace: str | None) -> str:
    from celery.app.defaults import _TO_NEW_KEY, DEFAULTS

    prefix = f"{namespace.rstrip('_')}_".upper() if namespace and name.isupper() else ""
    known = [f"{prefix}{key}".upper() for key in DEFAULTS] if prefix else [*DEFAULTS, *_TO_NEW_KEY]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f" Did you mean {near[0]}?" if near else ""


def _only_set(name: str, settings: Settings) -> Place | None:
    """Return where a name is set, if it is set in code that was read and stands nowhere else.

    Libraries read names too: then one of their loaded modules holds it, with or without the prefix.
    """
    place = None
    word = re.compile(rf"\b{re.escape(name)}\b")
    for module in settings.loaded.sources.modules:
        setters = [node for node, set_name in settings_in(module) if set_name == name]
        if len(word.findall(module.text)) > len(setters) + _times_explained(module, word):
            return None
        if setters and place is None:
            place = module.place(setters[0])
    read = {module.text for module in settings.loaded.sources.modules}
    if place is None or any(word.search(text) for text in project_texts() if text not in read):
        return None
    bare = name.removeprefix(f"{settings.loaded.app.namespace or ''}_").lower()
    return None if settings.loaded.library_mentions(name, bare) else place


def _times_explained(module: Module, word: re.Pattern[str]) -> int:
    """Return how often a name stands in comments: there nobody reads it."""
    comments = (line.partition("#")[2] for line in module.lines if "#" in line)
    return sum(len(word.findall(comment)) for comment in comments)
