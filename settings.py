"""Every setting of the project, in one place.

Values come from the environment, then from a `.env` file in the project folder, then from the defaults
below. With no setting at all, everything runs in the project's own sandbox and touches no other server.
"""

import hashlib
import os
import re
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, NoReturn, Self
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parent

BROKER_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps")
RESULT_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel")

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
    celery_profile: Literal["reliable", "fast", "drill"] = "reliable"
    timezone: str = "UTC"
    sandbox_dir: Path | None = None
    state_dir: Path = ROOT / ".state"
    data_dir: Path = ROOT / "data"
    database_url: str | None = None
    periodic_task_seconds: Annotated[float, Field(gt=0)] = 30.0
    flower_user: str = "learner"
    flower_password: SecretStr | None = None

    smtp_host: str | None = None  # unset: the sandbox's own mail server
    smtp_port: Annotated[int, Field(gt=0, lt=65536)] = 25
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    smtp_starttls: bool = False
    smtp_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    mail_from: str = "learn-celery@localhost"

    # Nobody here reads these two. docker-compose.yml does, from the same .env.
    redis_password: SecretStr | None = None
    postgres_password: SecretStr | None = None

    @field_validator(
        "celery_broker_url",
        "celery_result_backend",
        "database_url",
        "sandbox_dir",
        "flower_password",
        "smtp_host",
        "smtp_user",
        "smtp_password",
        "redis_password",
        "postgres_password",
        mode="before",
    )
    @classmethod
    def _empty_means_unset(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("state_dir", "data_dir", mode="before")
    @classmethod
    def _empty_means_default(cls, value: str | Path, info: ValidationInfo) -> str | Path:
        return value or cls.model_fields[str(info.field_name)].default

    @field_validator("state_dir", "data_dir")
    @classmethod
    def _relative_to_the_project(cls, value: Path) -> Path:
        return ROOT / value.expanduser()  # the same folder, whatever the current one is

    @field_validator("celery_broker_url")
    @classmethod
    def _broker_url_is_known(cls, value: str | None) -> str | None:
        return _known_scheme(value, BROKER_SCHEMES)

    @field_validator("celery_result_backend")
    @classmethod
    def _result_backend_is_known(cls, value: str | None) -> str | None:
        return _known_scheme(value, RESULT_SCHEMES)

    @field_validator("database_url")
    @classmethod
    def _database_url_is_known(cls, value: str | None) -> str | None:
        if value is None or _known_scheme(value, tuple(DATABASE_SCHEMES)) is None:
            return None
        scheme, separator, rest = value.partition(":")
        return f"{DATABASE_SCHEMES[scheme]}{separator}{rest}"

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
            return self.sandbox_dir.expanduser().absolute()
        # One folder per user and checkout. It is short, because a socket path may have about 100 characters.
        checkout = hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:10]
        return Path(tempfile.gettempdir()) / f"learn-celery-{os.getuid()}-{checkout}"

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


def socket_url(sandbox: Path, database: int) -> str:
    """Return the URL of one database of the server in the folder `sandbox`."""
    return f"redis+socket://{quote(str(sandbox / 'broker.sock'))}?virtual_host={database}"


def _known_scheme(value: str | None, schemes: tuple[str, ...]) -> str | None:
    if value is None:
        return None
    scheme = urlsplit(value).scheme
    if scheme not in schemes:
        expected = ", ".join(f"{name}://" for name in schemes)
        raise ValueError(f"the URL starts with {scheme or 'no scheme'!r}; use one of {expected}")
    try:
        _ = urlsplit(value).port  # what follows a / or # in a password is not read as the port
    except ValueError:
        raise ValueError("the port is not a number; in a password write %2F for / and %23 for #") from None
    return value


def without_password(url: str) -> str:
    """Return `url` with its password replaced by `**`, fit for a message or a log."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":**@", 1)


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
            value = re.sub(r"//.*@", "//**@", repr(problem["input"]))  # without user and password
            text = f"{name}={value}: {reason}" if name else reason
        print(f"Setting refused: {text}.", file=sys.stderr)
    raise SystemExit(2)


settings = load_settings()
