"""Each process of a test run has a room: a temporary folder with a sandbox, a state folder, all else.

Nothing of the learner's is touched, and nothing depends on how the run was started. However the process ends,
a watchdog then ends what it has started, and removes the room.

pytest loads this module before all others (`-p` in pyproject.toml): the settings must not be read earlier.
"""

import atexit
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

MARK = "LEARN_TEST_ROOM"  # a program of the tests has it in its environment, with the room as the value
LONGEST_TEMPDIR = 24  # characters; rooms are in it, and sockets in rooms: their paths may have about 100


def make_room() -> str:
    """Make the room, and make it the place of all temporary files from now on."""
    place = tempfile.gettempdir()
    if MARK in os.environ:  # of a run inside a run, or of a process of pytest-xdist: a room in the room
        room = f"{place}/{os.getpid()}"  # nobody else writes there; short, for the sockets in it
        os.mkdir(room)
    else:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", place)  # tmp_path stays for a look after the run
        room = tempfile.mkdtemp(
            prefix="learn-test-", dir=place if len(os.fsencode(place)) <= LONGEST_TEMPDIR else "/tmp"
        )
    tempfile.tempdir = room
    return room


def start_watchdog(room: str) -> None:
    """Start the process that cleans up after this one. It sees the end of this one as the end of a pipe."""
    watchdog = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("watchdog.py")), room],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert watchdog.stdin
    KEPT.append(watchdog)
    atexit.register(os.write, watchdog.stdin.fileno(), b"This process has ended in good order.")


def give_programs_the_default_signals() -> None:
    """See to it that a program does not ignore a signal because this process does.

    A shell lets what it starts with `&` ignore Ctrl-C, and `nohup` lets it ignore the end of the terminal.
    Programs inherit that. A handler is not inherited: one that does nothing keeps this process as it is.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


KEPT: list[subprocess.Popen[bytes]] = []
ROOM = make_room()
start_watchdog(ROOM)
give_programs_the_default_signals()
os.umask(0o022)

os.environ |= {
    MARK: ROOM,
    "TMPDIR": ROOM,
    "SANDBOX_DIR": f"{ROOM}/sandbox",
    "STATE_DIR": f"{ROOM}/state",
    "WORKSPACE_DIR": f"{ROOM}/workspace",
    # Empty means unset, and it wins over a line in the learner's .env.
    "CELERY_BROKER_URL": "",
    "CELERY_RESULT_BACKEND": "",
    "REDIS_URL": "",
    "USE_REDIS": "",
    "CELERY_PROFILE": "reliable",
}
