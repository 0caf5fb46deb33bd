"""Flower reads this file when it starts in this folder: loopback only, and never without a password.

Flower's own defaults are the opposite: it listens on all addresses, and shows every task's arguments to
everybody.
"""

import secrets

from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.options import options

from settings import settings

LOOPBACK = ("127.0.0.1", "::1", "localhost")

address = options.address or "127.0.0.1"

if not options.unix_socket:
    try:
        for socket in bind_sockets(options.port, address):
            socket.close()
    except OSError as error:
        raise SystemExit(
            f"Flower cannot listen on port {options.port} of {address}: {error.strerror}. "
            "Does another Flower run? Choose a port of its own: --port=5556"
        ) from None

login = "Log in as your options say"
if not options.basic_auth and not options.auth:
    login = f"Log in as {settings.flower_user}"
    if settings.flower_password:
        password = settings.flower_password.get_secret_value()
        login += " with FLOWER_PASSWORD"
    elif address in LOOPBACK:
        password = secrets.token_urlsafe(9)
        login += f" with the password of this run: {password}"
    else:
        raise SystemExit(f"--address={address} is open to others: set FLOWER_PASSWORD first.")
    basic_auth = [f"{settings.flower_user}:{password}"]

# When Flower has told all else: what the user needs stands last.
IOLoop.current().call_later(1.5, print, f"Flower: http://{address}:{options.port}\n{login}", flush=True)
