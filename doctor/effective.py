"""The settings that are in effect, and what follows from them."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from doctor.findings import Place
from doctor.loading import LoadedApp

DEFAULT_VISIBILITY = 3600.0  # seconds; kombu.transport.redis


@dataclass(frozen=True)
class Settings:
    """The settings of an app, and what follows from them."""

    loaded: LoadedApp

    @property
    def conf(self) -> Any:
        """Celery's own object."""
        return self.loaded.conf

    @cached_property
    def transport(self) -> str:
        """The kind of broker: redis, amqp, … Empty if its library is missing."""
        with self.loaded.app.connection_for_write() as connection:
            try:
                return str(connection.transport.driver_type)
            except Exception:  # noqa: BLE001 - any library of a broker may be missing, or refuse its options
                return ""

    @property
    def is_redis(self) -> bool:
        """Whether the broker is Redis."""
        return self.transport == "redis"

    @cached_property
    def options(self) -> dict[str, Any]:
        """What the transport is told."""
        return dict(self.conf.broker_transport_options or {})

    @cached_property
    def visibility_timeout(self) -> float | None:
        """The visibility timeout in seconds, if the broker is Redis."""
        return float(self.options.get("visibility_timeout", DEFAULT_VISIBILITY)) if self.is_redis else None

    @cached_property
    def has_backend(self) -> bool:
        """Whether results are kept."""
        return type(self.loaded.app.backend).__name__ != "DisabledBackend"

    @property
    def pool(self) -> str:
        """The pool that the settings name."""
        return os.environ.get("CELERY_WORKER_POOL") or str(self.conf.worker_pool)

    def place(self, name: str) -> Place:
        """Return the line that sets a setting, or its name alone."""
        found = self.loaded.sources.where_set(self.spellings(name))
        return Place(name, found.path, found.line) if found else Place(f"setting {name}")

    def spellings(self, name: str) -> set[str]:
        """Return the names by which a file may set it."""
        from celery.app.defaults import _TO_OLD_KEY

        prefix = self.loaded.app.namespace
        spellings = {name, _TO_OLD_KEY.get(name, name)}
        return spellings | {f"{prefix}_{name}".upper()} if prefix else spellings

    def is_set(self, name: str) -> bool:
        """Tell whether a setting has another value than Celery's own."""
        from celery.app.defaults import DEFAULTS

        return bool(self.conf.get(name) != DEFAULTS[name])


def place_of_task(task: Any) -> Place:
    """Return the place where a task is defined."""
    body = task.run
    while hasattr(body, "__wrapped__"):
        body = body.__wrapped__
    code = getattr(body, "__code__", None)
    return Place(path=Path(code.co_filename), line=code.co_firstlineno) if code else Place(f"task {task.name}")
