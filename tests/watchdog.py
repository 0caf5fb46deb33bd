"""Cleans up after a process of a test run: ends all programs that it has started, and removes its room.

`tests/room.py` starts this beside each process of the run. It waits in a session of its own, so that it
outlives whatever ends the run: Ctrl-C, the end of the terminal, a kill.
"""

import contextlib
import shutil
import signal
import sys
import time

import psutil

GIVE_UP_SECONDS = 60


def programs_of(room: str) -> list[psutil.Process]:
    """Return the living processes whose environment names this room, or a room in it.

    A server writes its socket over its environment, where the system keeps that.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            mark = process.environ().get("LEARN_TEST_ROOM", "")
            is_server = any(f"unixsocket:{room}/" in word for word in process.cmdline())
            is_marked = f"{mark}/".startswith(f"{room}/")
            if (is_marked or is_server) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_programs_of(room: str, say: bool) -> None:
    """End them all, also those that are started meanwhile."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while (programs := programs_of(room)) and time.monotonic() < deadline:
        for program in programs:
            with contextlib.suppress(psutil.NoSuchProcess):
                if say:
                    print(f"The tests left a process behind: {program.cmdline()}", file=sys.stderr)
                program.kill()
        time.sleep(0.02)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    in_good_order = bool(sys.stdin.read())  # until the other end of the pipe closes
    end_programs_of(sys.argv[1], say=in_good_order)
    shutil.rmtree(sys.argv[1], ignore_errors=True)
