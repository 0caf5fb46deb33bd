"""docker-compose.yml and the Dockerfile, checked without Docker: against the specification and the code.

Everything that they name exists here too: queues, commands, options, settings, files. What the compose file
says of Redis and of stopping a worker is tried on real servers in tests/integration/test_redis_guide.py.
"""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
import uvicorn
from celery.bin.base import CLIContext
from celery.bin.celery import celery
from celery.utils.nodenames import host_format
from docker.utils.build import exclude_paths
from flower.options import default_options
from ruamel.yaml import YAML

from celery_app import QUEUES, TASK_MODULES, app
from settings import ROOT, Settings

TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = YAML(typ="safe").load(TEXT)["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "learn-celery"}
OTHERS = {name: service for name, service in SERVICES.items() if name not in OURS}

DOCKERFILE = (ROOT / "Dockerfile").read_text()
SETTINGS = {name.upper() for name in Settings.model_fields}
# What the images of Redis and PostgreSQL read, and we do not.
NOT_OUR_SETTINGS = {"REDISCLI_AUTH", "POSTGRES_USER", "POSTGRES_DB"}


def celery_options(line: str) -> tuple[str, dict[str, Any]]:
    """Parse a command line with Celery's own parser. Return the name of the command, and its options."""
    program, *arguments = shlex.split(line)
    assert program == "celery"
    with celery.make_context(program, arguments) as context:
        assert context.params["app"] == "celery_app"
        context.obj = CLIContext(app=app, no_color=True, workdir=None)  # type: ignore[arg-type]
        name, command, rest = celery.resolve_command(context, [*context._protected_args, *context.args])
        assert name
        assert command
        with pytest.MonkeyPatch.context() as patch:  # Celery adds an app's own options when it runs a command
            patch.setattr(command, "params", [*command.params, *app.user_options["preload"]])
            with command.make_context(name, list(rest), parent=context) as parsed:
                return name, parsed.params


COMMANDS = {name: celery_options(s["command"]) for name, s in OURS.items() if "celery" in s["command"]}


def services_that_run(command: str) -> list[str]:
    return [name for name, (command_name, _) in COMMANDS.items() if command_name == command]


# --- the compose file ---


def test_the_file_follows_the_compose_specification() -> None:
    program = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"),
            ROOT / "docker-compose.yml",
        ],
        capture_output=True,
        text=True,
    )
    assert program.returncode == 0, program.stdout + program.stderr


def test_each_queue_has_one_worker_service_and_there_is_no_other() -> None:
    served = {name: COMMANDS[name][1]["queues"] for name in services_that_run("worker")}
    assert served == {f"worker-{queue}": [queue] for queue in QUEUES}


def test_the_services_of_our_image_are_these() -> None:
    expected = [*(f"worker-{queue}" for queue in QUEUES), "api", "beat", "flower", "migrate"]
    assert sorted(OURS) == sorted(expected)
    assert set(COMMANDS) == set(expected) - {"api", "migrate"}


@pytest.mark.parametrize("name", services_that_run("worker") + services_that_run("beat"))
def test_a_healthcheck_asks_the_service_by_its_own_name(name: str) -> None:
    check = SERVICES[name]["healthcheck"]["test"]
    command, options = celery_options(check.replace("$$HOSTNAME", gethostname()))
    assert (command, options["command"]) == ("inspect", "ping")
    assert options["destination"] == [host_format(COMMANDS[name][1]["hostname"])]
    assert "@%h" in SERVICES[name]["command"]  # each replica has a name of its own


@pytest.mark.parametrize("name", COMMANDS)
def test_a_service_waits_for_its_broker_and_does_not_end(name: str) -> None:
    assert COMMANDS[name][1]["wait_for_broker"]


def test_flower_gets_no_option_that_it_does_not_know() -> None:
    # Flower itself passes over unknown options in silence.
    options = [word.removeprefix("--").partition("=")[0] for word in COMMANDS["flower"][1]["tornado_argv"]]
    assert options
    assert set(options) <= set(default_options)


def test_the_api_is_started_as_uvicorn_reads_it() -> None:
    program, *arguments = shlex.split(SERVICES["api"]["command"])
    assert program == "uvicorn"
    with uvicorn.main.make_context(program, arguments) as context:
        module, _, name = context.params["app"].partition(":")
        assert hasattr(importlib.import_module(module), name)
        assert SERVICES["api"]["ports"] == [f"127.0.0.1:{context.params['port']}:{context.params['port']}"]


def test_there_is_one_beat_and_there_cannot_be_two() -> None:
    assert services_that_run("beat") == ["beat"]
    assert SERVICES["beat"]["container_name"]  # Compose refuses to scale a service that has one
    assert not {"deploy", "scale"} & set(SERVICES["beat"])


def test_a_stopped_worker_has_time_to_give_its_tasks_back() -> None:
    for name in services_that_run("worker"):
        assert SERVICES[name]["stop_signal"] == "SIGQUIT"
        seconds = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert seconds > app.conf.worker_soft_shutdown_timeout


def test_every_variable_is_a_setting() -> None:
    set_for_us = {variable for service in OURS.values() for variable in service["environment"]}
    set_for_others = {variable for service in OTHERS.values() for variable in service.get("environment", {})}
    assert set_for_us <= SETTINGS
    assert set_for_others - SETTINGS == NOT_OUR_SETTINGS
    interpolated = set(re.findall(r"(?<!\$)\$\{?(\w+)", TEXT))
    assert interpolated == {"REDIS_PASSWORD", "POSTGRES_PASSWORD", "FLOWER_PASSWORD"}
    assert interpolated <= SETTINGS


@pytest.mark.parametrize("name", OURS)
def test_the_settings_of_a_service_are_accepted(name: str) -> None:
    given = {key.lower(): value for key, value in OURS[name]["environment"].items() if value is not None}
    settings = Settings(**given)
    assert settings.database.startswith("postgresql+psycopg://")
    assert not settings.uses_sandbox
    assert settings.smtp_host in SERVICES


def test_every_password_must_be_set_and_none_is_written_down() -> None:
    used = re.findall(r"\$\{(\w+PASSWORD)(.*?)\}", TEXT)
    assert {suffix for _, suffix in used} == {"", ":?set it in .env"}
    assert {name for name, suffix in used if suffix} == {name for name, _ in used}
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            if "PASSWORD" in variable or "AUTH" in variable:
                assert value.startswith("${")


def test_ports_are_open_on_this_machine_only() -> None:
    ports = {name: port for name, service in SERVICES.items() for port in service.get("ports", [])}
    assert set(ports) == {"api", "flower", "mailpit"}
    assert all(port.startswith("127.0.0.1:") for port in ports.values())


def test_every_image_has_its_version() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    images = [service["image"] for service in OTHERS.values()]
    assert len(set(bases)) == 1
    for image in [*bases, *images]:
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)*$", image), image


def test_every_service_has_a_healthcheck_and_comes_back_except_the_one_that_ends() -> None:
    lacking = {name for name, service in SERVICES.items() if not service.get("healthcheck")}
    ending = {name for name, service in SERVICES.items() if service["restart"] != "unless-stopped"}
    assert lacking == ending == {"migrate"}


def test_whoever_needs_a_service_waits_until_it_is_healthy() -> None:
    conditions = {
        (name, needed): waits["condition"]
        for name, service in SERVICES.items()
        for needed, waits in service.get("depends_on", {}).items()
    }
    assert conditions
    for (_, needed), condition in conditions.items():
        expected = "service_completed_successfully" if needed == "migrate" else "service_healthy"
        assert condition == expected
    assert all((name, "redis") in conditions for name in COMMANDS)


def test_what_tasks_write_is_in_volumes_that_all_workers_share() -> None:
    defaults = [Settings.model_fields[name].default.relative_to(ROOT) for name in ("data_dir", "state_dir")]
    for service in OURS.values():
        assert service["volumes"] == [f"{path.name.removeprefix('.')}:/app/{path}" for path in defaults]
        assert service["read_only"]


# --- the image ---


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what `docker build` would send, chosen by the code of Docker's own Python client."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    folder = tmp_path_factory.mktemp("context")
    for name in exclude_paths(str(ROOT), patterns):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def run_in(folder: Path, *command: str | Path) -> str:
    """Run Python in a copy of the project, with a database there, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(folder), "DATABASE_URL": "", "STATE_DIR": ".state"}
    program = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert program.returncode == 0, program.stderr
    return program.stdout


def test_the_image_has_every_module_that_its_programs_import(context: Path) -> None:
    modules = ["celery_app", "flowerconfig", "monitor", "lab.cli", "api.app", *TASK_MODULES]
    # A module that is missing there would be found in this folder: look where each has come from.
    code = f"""
import importlib, sys
from pathlib import Path
import flower.options
for name in {modules}: importlib.import_module(name)
ours = [m.__file__ for m in sys.modules.values() if str(getattr(m, "__file__", "")).startswith({str(ROOT)!r})]
print([name for name in ours if "site-packages" not in name and ".venv" not in name])
"""
    assert run_in(context, "-c", code).splitlines()[-1] == "[]"


def test_the_image_can_make_the_tables(context: Path) -> None:
    assert OURS["migrate"]["command"] == "alembic upgrade head"
    run_in(context, "-m", "alembic", "upgrade", "head")
    assert (context / ".state/database.sqlite").exists()


def test_the_image_has_the_sample_data_and_no_secret_and_nothing_that_was_made_here(context: Path) -> None:
    names = {path.relative_to(context).parts[0] for path in context.rglob("*") if path.is_file()}
    assert (context / "data/orders.csv").exists()
    assert not names & {".env", ".git", ".venv", "tests"}
    assert not (context / "data/out").exists()
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()  # all is refused but what is named


def test_what_the_dockerfile_copies_exists(context: Path) -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert copied == ["pyproject.toml uv.lock", "."]
    assert all((context / name).exists() for line in copied for name in line.split())


def test_the_image_is_built_with_the_uv_of_learn() -> None:
    versions = [re.findall(r"uv==([\d.]+)", text) for text in ((ROOT / "learn").read_text(), DOCKERFILE)]
    assert versions[0] == versions[1]
    assert len(versions[0]) == 1


def test_programs_in_the_image_do_not_run_as_root() -> None:
    users = re.findall(r"^USER (\d+)$", DOCKERFILE.rpartition("\nFROM ")[2], re.MULTILINE)
    assert users
    assert users[-1] != "0"
    assert all("user" not in service for service in OURS.values())
