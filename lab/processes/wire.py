"""What a program and the supervisor say to each other: a line of JSON for each request and each answer."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

BROKER = "broker"  # the name of the server that every sandbox has, unless the user has named one


class Message:
    """A request or an answer. Its fields, and no others, travel.

    Without fields it is a plain class: to make a dataclass takes a millisecond, of each start of a program.
    """

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Return the message that has these fields, as JSON knows them."""
        return cls(**fields)

    def encode(self) -> bytes:
        """Return it as one line."""
        fields = {"kind": type(self).__name__, **vars(self)}
        return json.dumps(fields, default=_plain).encode() + b"\n"


def _plain(value: object) -> object:
    return vars(value) if isinstance(value, Message) else str(value)


def decode(line: bytes) -> Message:
    """Return the message in a line. Raises `ValueError` if it is none that this version knows."""
    kinds = {kind.__name__: kind for kind in Message.__subclasses__()}
    try:
        fields = json.loads(line)
        return kinds[fields.pop("kind")].of(fields)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{line!r} is no message of this version: {error!r}") from error


# --- Requests ------------------------------------------------------------------------------------------


class GetStatus(Message):
    """What runs here? The answer is `Status`."""


class Pin(Message):
    """Stay when the last program has left. The answer is `Status`."""


@dataclass(eq=False)
class StartServer(Message):
    """Start a server at the socket `name`.sock, if it does not run. The answer is `Process`."""

    name: str
    arguments: list[str]


@dataclass(eq=False)
class StartWorker(Message):
    """Start `celery -A app worker arguments…` in `folder`. The answer is `Process`, when it is ready."""

    name: str
    app: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    pinned: bool  # stay when the program that asks has left
    path: list[str] | None = None  # folders to import from, instead of this project


@dataclass(eq=False)
class End(Message):
    """Send the signal `number` to a process. The answer is `Ended`, when it has ended."""

    pid: int
    number: int


class Stop(Message):
    """End all. There is no answer: the connection closes when nothing is left."""


# --- Answers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Process(Message):
    """A process of a sandbox: its name, its process id, its log file.

    `pinned`: a worker that stays when the program that started it ends. `started`: seconds since 1970.
    """

    name: str
    pid: int
    log: Path
    pinned: bool = False
    started: float = 0.0

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Return the message that has these fields, as JSON knows them."""
        return cls(**fields | {"log": Path(fields["log"])})


@dataclass(frozen=True)
class Status(Message):
    """What runs in a sandbox. `programs` is how many use it now."""

    supervisor: int
    folder: Path
    logs: Path
    pinned: bool
    programs: int
    broker: Process | None
    workers: tuple[Process, ...]

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Return the message that has these fields, as JSON knows them."""
        typed = {
            "folder": Path(fields["folder"]),
            "logs": Path(fields["logs"]),
            "broker": Process.of(fields["broker"]) if fields["broker"] else None,
            "workers": tuple(map(Process.of, fields["workers"])),
        }
        return cls(**fields | typed)


class Ended(Message):
    """The process has ended."""


class Busy(Message):
    """Another supervisor has the folder: it starts or ends at this moment. Ask there, or try once more."""


@dataclass(eq=False)
class Failed(Message):
    """It could not be done."""

    reason: str

    def __str__(self) -> str:
        return self.reason
