"""`./learn web`: a broker, workers for all queues, the API and its page, for as long as the command runs."""

import contextlib
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from celery_app import QUEUES
from lab import console
from lab.sandbox import Sandbox, SandboxError
from lab.serving import served

HOST = "127.0.0.1"  # whoever can reach the API can send it work
PORTS = range(8000, 8020)
LOOK_SECONDS = 1.0
GRACE_SECONDS = 1  # for open requests after Ctrl-C; a stream of events would go on for ever


def run(port: int | None, browser: bool) -> None:
    """Serve the page until Ctrl-C. `port`: where; without it, 8000 or the next that is free.

    Raises `ValueError` for a port that is taken, and what `served` raises.
    """
    listener = listen(port)
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave the sandbox in good order
    config = uvicorn.Config(
        "api.app:app",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    with listener, served(QUEUES) as sandbox, keeping_a_worker(sandbox):
        console.say(f"The page: {address}  Ctrl-C ends it.")
        if browser:
            webbrowser.open(address)  # it waits at the listener until the server is ready
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def listen(port: int | None) -> socket.socket:
    """Return a socket that listens. Raises `ValueError` if the port, or all that we try, are taken."""
    for number in [port] if port is not None else PORTS:
        try:
            return socket.create_server((HOST, number))
        except OSError as error:
            reason = f"port={number}: cannot listen there ({error.strerror}). Give a free one with --port"
    raise ValueError(reason)


@contextmanager
def keeping_a_worker(sandbox: Sandbox) -> Iterator[None]:
    """Start another worker whenever ours has ended, as systemd or Docker would."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            running = {worker.pid for worker in sandbox.connection.status().workers}
            if sandbox.worker.pid not in running:
                console.say(f"The worker {sandbox.worker.name} has ended. Another one starts.")
                with contextlib.suppress(SandboxError):  # the broker is away: try again
                    sandbox.start_worker(QUEUES)

    thread = threading.Thread(target=look, name="worker watch", daemon=True)
    if sandbox.workers:  # otherwise those that were there are somebody else's
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.is_alive():
            thread.join()
