"""A real mail server for the sandbox: it keeps what it receives, and fails when told to.

It speaks SMTP on a Unix socket in a private folder, so it opens no port and nobody else reads the mail.
Like most servers it keeps one copy of each Message-ID. Everybody has a mailbox here, except `nobody@…`.
"""

import argparse
import asyncio
import hashlib
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Literal, get_args

from aiosmtpd.controller import UnixSocketController
from aiosmtpd.smtp import SMTP, Envelope, Session

from services.paths import atomic_write
from settings import MAIL_SOCKET

Fault = Literal[
    "421",  # answers the sender "not now" and hangs up
    "450",  # refuses a recipient for now
    "550",  # refuses a recipient for good
    "close",  # hangs up when it has the text, without an answer
    "hang",  # takes the text, drops it, and never answers
    "accept-hang",  # keeps the mail, and never says so
]


@contextmanager
def mail_server(folder: Path) -> Iterator[None]:
    """Run a mail server on a socket in `folder` until the block ends.

    `folder` is made, for this user only. The mails are kept in its sub-folder `mail`, one file each.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket = folder / MAIL_SOCKET
    controller = UnixSocketController(_Handler(folder), socket, server_hostname="localhost")
    controller.start()
    try:
        yield
    finally:
        controller.stop()
        socket.unlink(missing_ok=True)


def serve(folder: Path) -> None:
    """Run a mail server in `folder` until this process gets SIGTERM or SIGINT."""
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)  # before the server's thread starts
    with mail_server(folder):
        signal.sigwait(stop_signals)


def fail_next(folder: Path, *faults: Fault) -> None:
    """Tell the server in `folder` how to fail: the first fault at the next mail, and so on.

    The server may run in another process. After the last fault it accepts again.

    Raises `ValueError` for a fault that is not a `Fault`.
    """
    for fault in faults:
        if fault not in get_args(Fault):
            raise ValueError(f"fault={fault!r}: unknown; use one of {', '.join(get_args(Fault))}")
    script = folder / "mail-faults"
    script.mkdir(parents=True, exist_ok=True)
    for position, fault in enumerate(faults):
        (script / f"{time.time_ns()}-{position:03}.{fault}").touch()


def accept_again(folder: Path) -> None:
    """Take back the faults that have not come yet."""
    for fault in (folder / "mail-faults").glob("*"):
        fault.unlink(missing_ok=True)


def received(folder: Path) -> list[EmailMessage]:
    """Return the mails that the server in `folder` has kept, in the order of their arrival."""
    files = sorted((folder / "mail").glob("*.eml"), key=lambda file: file.stat().st_mtime_ns)
    return [message_from_bytes(file.read_bytes(), EmailMessage, policy=policy.default) for file in files]


def history(folder: Path) -> list[str]:
    """Return what the server in `folder` did with each mail, oldest first.

    An entry is `kept`, `kept already` (one more copy of a Message-ID) or the name of a fault.
    """
    log = folder / "mail.log"
    return log.read_text().splitlines() if log.exists() else []


class _Handler:
    """What to do at each step of a conversation. aiosmtpd calls the methods by their names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._fault("421"):
            await server.push("421 4.3.2 Service not available, try again later")
            await _hang_up(server)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        fault = self._fault("450", "550")
        if fault == "450":
            return "450 4.2.1 Mailbox busy, try again later"
        if fault == "550" or address.startswith("nobody@"):
            return "550 5.1.1 No such mailbox"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        fault = self._fault("close", "hang", "accept-hang")
        if fault == "close":
            await _hang_up(server)
        if fault == "hang":
            await _never()
        try:
            self._keep(envelope)
        except OSError as error:  # a full disk, most likely
            return f"452 4.3.1 Insufficient system storage: {error.strerror}"
        if fault == "accept-hang":
            await _never()
        return "250 OK, kept"

    def _fault(self, *here: Fault) -> Fault | None:
        """Take the next fault off the script, if it is one of those that happen `here`."""
        script = sorted((self.folder / "mail-faults").glob("*"))
        for fault in here:
            if script and script[0].suffix == f".{fault}":
                script[0].unlink()
                self._log(fault)
                return fault
        return None

    def _keep(self, envelope: Envelope) -> None:
        content = envelope.original_content or b""
        message_id = str(message_from_bytes(content)["Message-ID"] or content)
        file = self.folder / "mail" / f"{hashlib.sha256(message_id.encode()).hexdigest()[:16]}.eml"
        if file.exists():
            self._log("kept already")
            return
        with atomic_write(file) as output:
            output.write(content)
        self._log("kept")

    def _log(self, entry: str) -> None:
        with (self.folder / "mail.log").open("a") as log:
            log.write(f"{entry}\n")


async def _hang_up(server: SMTP) -> None:
    assert server.transport is not None
    server.transport.close()
    await _never()  # aiosmtpd cancels this when the connection is gone


async def _never() -> None:
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the socket and the mails are")
    serve(parser.parse_args().folder)
