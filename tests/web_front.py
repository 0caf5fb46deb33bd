"""How tests run the API in a process of its own, and talk to it."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx

from lab.web import listen
from services.task_records import create

SLOW = "tests.helper_tasks.write_when_released"


class Api:
    """A process that serves the API, and clients of it. Each client is a user."""

    def __init__(self, deadly: str = "", port: int = 0, **constants: Any) -> None:
        listener = listen(port)
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        named = {f"api.{name.replace('__', '.')}": value for name, value in constants.items()}
        self.log = Path(tempfile.mkstemp(suffix=".log")[1])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.api_server", str(listener.fileno()), json.dumps(named), deadly],
            pass_fds=[listener.fileno()],
            env=os.environ,
            stderr=self.log.open("w"),
        )
        listener.close()  # requests wait at the socket until the process is ready

    def client(self, cookies: Any = None) -> httpx.Client:
        """Return a client of a new user, or of the user with these cookies."""
        client = httpx.Client(base_url=self.address, cookies=cookies, timeout=20)
        client.get("/tasks")
        return client

    def end(self) -> None:
        """End the process in good order."""
        self.process.terminate()
        self.process.wait(20)
        sys.stderr.write(self.log.read_text())  # pytest shows it of a test that fails


@contextmanager
def serving(deadly: str = "", port: int = 0, **constants: Any) -> Iterator[Api]:
    """Run the API for the time of a block. `dispatcher__LEASE=1` gives a constant another value."""
    api = Api(deadly, port, **constants)
    try:
        yield api
    finally:
        api.end()


def slow_task(cookie: str, folder: object) -> str:
    """Write the row of a task that waits for files in `folder`, for the user of a cookie. Return its id."""
    user = hashlib.sha256(cookie.encode()).hexdigest()
    return create(SLOW, {"folder": str(folder)}, user).record.id


def events_in(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Give the server-sent events of a response, line by line: `event`, `id`, and `data` from JSON."""
    event: dict[str, Any] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line and name:
            event[name] = json.loads(value) if name == "data" else value
        elif event:
            if "event" in event:
                yield event
            event = {}
