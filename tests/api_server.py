"""The API as tests start it: it knows the tasks of the tests, and may be told to be quick, or to die.

    python -m tests.api_server DESCRIPTOR '{"api.dispatcher.LEASE": 1}' api.dispatcher.mark_sent

The first argument is a socket that listens. The second are constants of modules and their values, of which
times with `timedelta` are in seconds. The third is a function: the process kills itself when it is called.
"""

import importlib
import json
import os
import signal
import sys
from datetime import timedelta
from typing import Any

import uvicorn

import tests.helper_tasks  # noqa: F401 - the app then knows them


def put(name: str, value: Any) -> None:
    """Give a name of a module another value."""
    module, _, attribute = name.rpartition(".")
    setattr(importlib.import_module(module), attribute, value)


def main() -> None:
    """Serve until SIGTERM."""
    descriptor, constants, deadly = sys.argv[1:]
    for name, value in json.loads(constants).items():
        put(name, timedelta(seconds=value) if name.endswith("LEASE") else value)
    if deadly:
        put(deadly, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    uvicorn.run("api.app:app", fd=int(descriptor), access_log=False, timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
