"""Every setting of the project, in one place.

Values come from the environment, then from a `.env` file in the project folder, then from the defaults
below. With no setting at all, everything runs in the project's own sandbox and touches no other server.
"""

import difflib
import hashlib
import os
import re
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parent

RESULT_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel")
BROKER_SCHEMES = (*RESULT_SCHEMES, "amqp", "amqps")
LONGEST_SOCKET_PATH = 107  # bytes, on Linux; macOS has 103

BROKER_DATABASE = 0
RESULT_DATABASE = 1
MAIL_SOCKET = "smtp.sock"

# What DATABASE_URL may start with, and the same with the driver that this project installs.
DATABASE_SCHEMES = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


class Settings(BaseSettings):
    """What may be set. The name in the environment is the field's name in capitals."""

    model_config = SettingsConfigDict(env_file=ROOT / ".env", extra="forbid", str_strip_whitespace=True)

    celery_broker_url: str | None = None
    celery_result_backend: str | None = None
    sentinel_master: str = "mymaster"  # the name that Sentinel gives the Redis, for sentinel://
    celery_profile: Literal["reliable", "fast", "drill"] = "reliable"
    timezone: str = "UTC"
    sandbox_dir: Path | None = None
    state_dir: Path = ROOT / ".state"
    data_dir: Path = ROOT / "data"
    workspace_dir: Path = ROOT / "workspace"
    database_url: str | None = None
    periodic_task_seconds: Annotated[float, Field(ge=0.1, le=366 * 86_400)] = 30.0
    flower_user: str = "learner"
    flower_password: SecretStr | None = None

    smtp_host: str | None = None  # unset: the sandbox's own mail server
    smtp_port: Annotated[int, Field(gt=0, lt=65536)] = 25
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    smtp_starttls: bool = False
    smtp_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    mail_from: str = "learn-celery@localhost"

    # Any server that speaks the OpenAI protocol, as http://127.0.0.1:11434/v1. Unset: api.openai.com
    openai_base_url: str | None = None
    openai_api_key: SecretStr | None = None
    openai_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0  # for the next piece of the text

    # Nobody here reads these two. docker-compose.yml does, from the same .env.
    redis_password: SecretStr | None = None
    postgres_password: SecretStr | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _empty_means_unset(cls, value: Any, info: ValidationInfo) -> Any:
        # An empty variable in the environment wins over a line in .env, and means the default.
        is_empty = isinstance(value, str) and not value.strip()
        return cls.model_fields[str(info.field_name)].default if is_empty else value

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)  # a name that does not exist would hang the worker
        except (LookupError, ValueError, OSError):
            names = {name.lower(): name for name in available_timezones()}
            near = difflib.get_close_matches(value.lower(), names, n=1, cutoff=0.8)
            remedy = f"the nearest is {names[near[0]]}" if near else "use a name such as Asia/Shanghai"
            raise ValueError(f"no such time zone; {remedy}") from None
        return value

    @field_validator("state_dir", "data_dir", "workspace_dir", "sandbox_dir")
    @classmethod
    def _folder_of_the_project(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        try:
            path = ROOT / value.expanduser()  # the same folder, whatever the current one is
        except RuntimeError:
            raise ValueError("no such user's home; write the whole path") from None
        for part in (path, *path.parents):
            if part.exists() and not part.is_dir():
                raise ValueError(f"{part} is a file; name a folder")
        return path

    @field_validator("flower_user", "flower_password", "smtp_user", "smtp_password")
    @classmethod
    def _login_is_ascii(cls, value: str | SecretStr | None, info: ValidationInfo) -> str | SecretStr | None:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value or ""
        if not text.isascii():  # neither Flower nor Python's smtplib can compare or send another
            raise ValueError("use ASCII characters only")
        if info.field_name == "flower_user" and ":" in text:
            raise ValueError("a colon ends the user name in a login; use another character")
        return value

    @field_validator("smtp_host")
    @classmethod
    def _host_is_only_a_host(cls, value: str | None) -> str | None:
        if value and (re.search(r"[\s/@]", value) or value.count(":") == 1):
            raise ValueError("write only the host's name or address; the port is SMTP_PORT")
        return value

    @field_validator("openai_base_url")
    @classmethod
    def _base_url_is_one_of_a_web_server(cls, value: str | None) -> str | None:
        if value and _split(value, ("http", "https")).hostname is None:
            raise ValueError("write the whole address, such as http://127.0.0.1:11434/v1")
        return value

    @field_validator("mail_from")
    @classmethod
    def _sender_is_an_address(cls, value: str) -> str:
        if not re.fullmatch(r"[^\s@<>]+@[^\s@<>]+", value):
            raise ValueError("write an address such as shop@example.org, without a name")
        return value

    @field_validator("celery_broker_url")
    @classmethod
    def _broker_url_can_work(cls, value: str | None) -> str | None:
        return value and _checked_servers(value, BROKER_SCHEMES, several=BROKER_SCHEMES)

    @field_validator("celery_result_backend")
    @classmethod
    def _result_backend_can_work(cls, value: str | None) -> str | None:
        return value and _checked_servers(value, RESULT_SCHEMES, several=("sentinel",))

    @field_validator("database_url")
    @classmethod
    def _database_url_can_work(cls, value: str | None) -> str | None:
        if value is None:
            return None
        scheme = _split(value, tuple(DATABASE_SCHEMES)).scheme
        if scheme == "sqlite":
            path, separator, query = value.partition("?")
            name = path.removeprefix("sqlite:///")
            if name in ("", ":memory:", path):
                raise ValueError("name a file that all processes share, such as sqlite:///shop.sqlite")
            return f"sqlite:///{ROOT / name}{separator}{query}"
        return value.replace(scheme, DATABASE_SCHEMES[scheme], 1)

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        # One of the two alone would mix somebody's server with the sandbox, and no result would arrive.
        if (self.celery_broker_url is None) != (self.celery_result_backend is None):
            missing = "CELERY_RESULT_BACKEND" if self.celery_broker_url else "CELERY_BROKER_URL"
            raise ValueError(
                "CELERY_BROKER_URL and CELERY_RESULT_BACKEND go together: "
                f"set {missing} too, or unset the other"
            )
        return self

    @model_validator(mode="after")
    def _mail_login_is_complete(self) -> Self:
        if (self.smtp_user is None) != (self.smtp_password is None):
            missing = "SMTP_PASSWORD" if self.smtp_user else "SMTP_USER"
            raise ValueError(
                f"SMTP_USER and SMTP_PASSWORD go together: set {missing} too, or unset the other"
            )
        if self.smtp_user and not self.smtp_starttls:
            raise ValueError("SMTP_USER needs SMTP_STARTTLS=true, or the password travels unencrypted")
        return self

    @cached_property
    def sandbox_folder(self) -> Path:
        """The private folder of the sandbox that all terminals of this checkout share."""
        if self.sandbox_dir:
            return self.sandbox_dir
        # One folder per user and checkout. It is short, because a socket path may have about 100 characters.
        # A checkout keeps its number when it is moved, and its sandbox is still found.
        place = ROOT.stat()
        checkout = hashlib.sha256(f"{place.st_dev} {place.st_ino}".encode()).hexdigest()[:10]
        return _temporary_folder() / f"learn-celery-{os.getuid()}-{checkout}"

    @property
    def database(self) -> str:
        """The URL of the database."""
        return self.database_url or f"sqlite:///{self.state_dir / 'database.sqlite'}"

    @property
    def out_dir(self) -> Path:
        """Where tasks write files for people: exports, rejects, reports. All of it can be made again."""
        return self.data_dir / "out"

    @property
    def mail_socket(self) -> Path:
        """Where the sandbox's mail server listens."""
        return self.sandbox_folder / MAIL_SOCKET

    @property
    def uses_sandbox(self) -> bool:
        """Whether the broker is the sandbox's own, and not one that the user has named."""
        return self.celery_broker_url is None

    @property
    def broker_url(self) -> str:
        """Where tasks are sent."""
        return self.celery_broker_url or socket_url(self.sandbox_folder, BROKER_DATABASE)

    @property
    def result_backend(self) -> str:
        """Where results are kept."""
        return self.celery_result_backend or socket_url(self.sandbox_folder, RESULT_DATABASE)


def _temporary_folder() -> Path:
    # `tempfile` takes another folder when this one is full: then the sandbox in it would not be found.
    named = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - what we make there has a private folder
    return named if named.is_dir() else Path(tempfile.gettempdir())


def socket_url(sandbox: Path, database: int) -> str:
    """Return the URL of one database of the server in the folder `sandbox`."""
    return f"redis+socket://{quote(str(sandbox / 'broker.sock'))}?virtual_host={database}"


def _checked_servers(value: str, schemes: tuple[str, ...], several: tuple[str, ...]) -> str:
    """Return the URL of one server, or of several with a semicolon between, if Celery can use it."""
    urls = [url.strip() for url in value.split(";")]
    for url in urls:
        parts = _split(url, schemes)
        if len(urls) > 1 and (parts.scheme not in several or parts.scheme != urlsplit(urls[0]).scheme):
            raise ValueError("of several servers all must have one scheme, for results sentinel://")
        if parts.scheme == "redis+socket":
            _check_socket(parts)
        elif parts.scheme in RESULT_SCHEMES and not re.fullmatch(r"/?\d*", parts.path):
            raise ValueError("after the host stands the number of a database, such as /0, or nothing")
    return ";".join(urls)


def _check_socket(parts: SplitResult) -> None:
    path = unquote(parts.path)
    if parts.hostname or len(path) < 2:
        raise ValueError("name the socket with its whole path: redis+socket:///path/to/redis.sock")
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise ValueError(f"the path of a socket may have {LONGEST_SOCKET_PATH} bytes; use a shorter one")
    query = parse_qs(parts.query)
    if "db" in query or not all(number.isdecimal() for number in query.get("virtual_host", [])):
        raise ValueError("write the number of the database as ?virtual_host=0")


def _split(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """Return the parts of a URL. Raises `ValueError` for a scheme or a port that cannot be."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in schemes:
        expected = ", ".join(f"{name}://" for name in schemes)
        raise ValueError(
            f"the URL starts with {scheme if separator else 'no scheme'!r}; use one of {expected}"
        )
    try:
        parts = urlsplit(url)
        port = parts.port  # what follows a / or # in a password is not read as the port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(
            "host or port cannot be read; in a password write %2F for /, %23 for #, %3F for ? and %3B for ;"
        )
    return parts


def server_of(url: str) -> str:
    """Return `url` without the number of the database: two URLs of one server become the same."""
    if url.startswith("redis+socket:"):
        return re.sub(r"[?&]virtual_host=\d*", "", url)
    return re.sub(r"(?<=[^/])/\d*(?=$|[?;])", "", url)


def without_password(url: str) -> str:
    """Return `url` with each password in it replaced by `**`, fit for a message or a log."""
    hidden = re.sub(r"((?:^|;)\s*[\w+.-]+://[^/?#;:@]*):[^/?#;]*@", r"\1:**@", url)
    return re.sub(r"([?&]\w*password=)[^&;]*", r"\1**", hidden)


def load_settings() -> Settings:
    """Read the settings. On a bad one, say which, what it is and what to do, and exit with code 2."""
    try:
        return Settings()
    except ValidationError as error:
        _refuse(error)


def _refuse(error: ValidationError) -> NoReturn:
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"]).upper()
        if problem["type"] == "extra_forbidden":
            known = ", ".join(field.upper() for field in Settings.model_fields)
            text = f"{name} in .env is not a setting. Correct or remove it. Settings: {known}"
        else:
            reason = problem["msg"].removeprefix("Value error, ")
            text = f"{name}={_shown(name, problem['input'])}: {reason}" if name else reason
        print(f"Setting refused: {text}.", file=sys.stderr)
    raise SystemExit(2)


def _shown(name: str, value: Any) -> str:
    if "PASSWORD" in name or "KEY" in name:
        return "**"
    text = repr(value)
    before, at, after = text.rpartition("@")
    if at and re.search("[:/]", before):  # a login; what is refused may have any form
        scheme = re.match(r".[\w+.-]+://", text)
        return f"{scheme[0] if scheme else text[0]}**@{without_password(after)}"
    return without_password(text)


settings = load_settings()
