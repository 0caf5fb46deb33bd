"""Send mail over SMTP, and tell apart what is worth a retry.

A mail is work with an effect in the outside world, and a queue may deliver the same task twice. So each
mail has a Message-ID that is made from the caller's id, and a ledger remembers which ones have been sent.
One gap stays, for everybody who sends mail: when the process dies after the server has accepted the mail
and before the ledger knows, the mail is sent again. It has the same Message-ID, and most servers keep one.
"""

import mimetypes
import re
import smtplib
import sqlite3
import ssl
import time
import unicodedata
from collections.abc import Sequence
from contextlib import closing, suppress
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import localtime
from typing import NoReturn, TypedDict

from services.paths import inside
from settings import settings

MAX_RECIPIENTS = 50
MAX_ATTACHMENT_BYTES = 10_000_000
LEDGER_DAYS = 30  # longer than any message waits for its redelivery

# The rule of HTML's <input type=email>: no spaces, no line breaks, no names, no lists. ASCII only.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
ADDRESS = re.compile(rf"[\w.!#$%&'*+/=?^`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*", re.ASCII)
IDENTIFIER = re.compile(r"[\w.+-]+", re.ASCII)


class TemporaryMailError(Exception):
    """The mail was not sent this time. Trying again later may work."""


class PermanentMailError(Exception):
    """The mail cannot be sent like this. Trying again does not help."""


class SentMail(TypedDict):
    """What became of a mail. `already_sent` means: by an earlier delivery of the same task."""

    message_id: str
    recipients: list[str]
    already_sent: bool


class _Connection(smtplib.LMTP):
    """SMTP over TCP or, for a host that starts with `/`, over a Unix socket."""

    ehlo_msg = "ehlo"  # LMTP can reach a Unix socket. With this greeting it speaks plain SMTP.


def send_email(
    unique_id: str,
    to: str | Sequence[str],
    subject: str,
    body: str,
    html: str | None = None,
    attachments: Sequence[str] = (),
) -> SentMail:
    """Send one mail to one or more addresses, at most once per `unique_id` as far as that can be known.

    `unique_id` must be the same each time this mail is tried: a Celery task's id is. `body` is plain text,
    `html` the same in HTML. `attachments` are paths in the data folder.

    All recipients get the mail or none: the text is sent only after the server has accepted each of them.

    Raises `PermanentMailError` for bad arguments and for a 5xx answer, and `TemporaryMailError` when the
    server is away, silent, breaks off or answers 4xx, or while another process is sending the same mail.
    """
    recipients = _checked_recipients(to)
    message = _compose(unique_id, recipients, subject, body, html)
    _attach(message, attachments)
    message_id = str(message["Message-ID"])
    claim = _claim(message_id)
    if claim is not None:
        sent = False
        try:
            _deliver(message, recipients)
            sent = True
        finally:
            _settle(message_id, claim, sent)
    return {"message_id": message_id, "recipients": recipients, "already_sent": claim is None}


def _checked_recipients(to: str | Sequence[str]) -> list[str]:
    recipients = list(dict.fromkeys([to] if isinstance(to, str) else to))
    if not recipients:
        raise PermanentMailError("to=[]: nobody to send to; give at least one address")
    if len(recipients) > MAX_RECIPIENTS:
        raise PermanentMailError(
            f"to has {len(recipients)} addresses; {MAX_RECIPIENTS} are allowed. "
            "Send one mail to each person, for example as a group of tasks"
        )
    for address in recipients:
        _check_address("to", address)
    return recipients


def _check_address(field: str, address: str) -> None:
    # `fullmatch`: a line break after a good address would start a header of the attacker's choice.
    if len(address) > 254 or not ADDRESS.fullmatch(address):
        raise PermanentMailError(
            f"{field}={address!r}: not a mail address; give one address like ada@example.org, "
            "without a name and without line breaks"
        )


def _compose(
    unique_id: str, recipients: list[str], subject: str, body: str, html: str | None
) -> EmailMessage:
    if not IDENTIFIER.fullmatch(unique_id):
        raise PermanentMailError(f"unique_id={unique_id!r}: use letters, digits and . _ + - only")
    # Cc: control characters. Zl, Zp: Unicode's own line breaks. Cs: half a character.
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") for character in subject):
        raise PermanentMailError(
            f"subject={subject!r}: line breaks and control characters are not allowed; put it on one line"
        )
    _check_address("MAIL_FROM", settings.mail_from)
    domain = settings.mail_from.partition("@")[2]
    message = EmailMessage(policy=SMTP.clone(cte_type="7bit"))  # every server takes 7 bits
    message["Message-ID"] = f"<{unique_id}@{domain}>"
    message["Date"] = localtime()
    message["From"] = settings.mail_from
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject
    try:
        message.set_content(body)
        if html is not None:
            message.add_alternative(html, subtype="html")
    except UnicodeEncodeError as error:
        raise PermanentMailError(f"body or html is not valid Unicode text: {error}") from None
    return message


def _attach(message: EmailMessage, attachments: Sequence[str]) -> None:
    room = MAX_ATTACHMENT_BYTES
    for attachment in attachments:
        try:
            path = inside(settings.data_dir, attachment, field="attachments")
            with path.open("rb") as file:
                content = file.read(room + 1)
        except ValueError as error:
            raise PermanentMailError(str(error)) from None
        except OSError as error:
            raise PermanentMailError(
                f"attachments={attachment!r}: {error.strerror}; give a file in {settings.data_dir}"
            ) from error
        room -= len(content)
        if room < 0:
            raise PermanentMailError(
                f"attachments={attachment!r}: more than {MAX_ATTACHMENT_BYTES:,} bytes in total; "
                "send a link instead"
            )
        kind, encoding = mimetypes.guess_type(path)
        maintype, _, subtype = (kind if kind and not encoding else "application/octet-stream").partition("/")
        message.add_attachment(content, maintype=maintype, subtype=subtype, filename=path.name)


def _deliver(message: EmailMessage, recipients: list[str]) -> None:
    host = settings.smtp_host or str(settings.mail_socket)
    try:
        # Without a name, smtplib looks up this machine's, which can take seconds.
        own_name = None if settings.smtp_host else "localhost"
        connection = _Connection(host, settings.smtp_port, own_name, timeout=settings.smtp_timeout_seconds)
        with closing(connection) as server:
            if settings.smtp_starttls:
                server.starttls(context=ssl.create_default_context())
            if settings.smtp_user and settings.smtp_password:
                server.login(settings.smtp_user, settings.smtp_password.get_secret_value())
            server.ehlo_or_helo_if_needed()
            _expect_success("MAIL_FROM", settings.mail_from, server.mail(settings.mail_from))
            for address in recipients:
                _expect_success("to", address, server.rcpt(address))
            _expect_success("Message-ID", message["Message-ID"], server.data(message.as_bytes()))
            with suppress(smtplib.SMTPServerDisconnected):  # accepted: how they part no longer matters
                server.quit()
    except smtplib.SMTPResponseException as error:
        _refused(f"mail server {host}", error.smtp_code, error.smtp_error)
    except (smtplib.SMTPNotSupportedError, ssl.SSLCertVerificationError) as error:
        raise PermanentMailError(f"mail server {host}: {error}; check SMTP_HOST and SMTP_STARTTLS") from error
    except OSError as error:  # smtplib's own errors are OSErrors too
        raise TemporaryMailError(
            f"mail server {host} does not answer: {error}. "
            "Start the sandbox's own with ./learn up, or set SMTP_HOST"
        ) from error


def _expect_success(field: str, value: str, reply: tuple[int, bytes]) -> None:
    code, text = reply
    if not 200 <= code < 300:
        _refused(f"{field}={value!r}", code, text)


def _refused(what: str, code: int, text: bytes | str) -> NoReturn:
    answer = text if isinstance(text, str) else text.decode(errors="replace")
    if 400 <= code < 500:
        raise TemporaryMailError(f"{what}: not accepted now: {code} {answer}")
    raise PermanentMailError(f"{what}: refused: {code} {answer}")


def _ledger() -> sqlite3.Connection:
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    ledger = sqlite3.connect(settings.state_dir / "mail.sqlite3", timeout=10)
    ledger.execute("CREATE TABLE IF NOT EXISTS mail (message_id TEXT PRIMARY KEY, state TEXT, since REAL)")
    return ledger


def _claim(message_id: str) -> float | None:
    """Mark a mail as being sent by us, and return the time of this claim, or None if it has been sent.

    "Look, then mark" would let two processes both look, and both send. This is one statement, and of two
    processes one wins. A claim has a lease: what is older belongs to a process that died.
    """
    now = time.time()
    lease = 2 * settings.smtp_timeout_seconds
    with closing(_ledger()) as ledger, ledger:
        ledger.execute("DELETE FROM mail WHERE since < ?", [now - LEDGER_DAYS * 86_400])
        claimed = ledger.execute(
            "INSERT INTO mail VALUES (?, 'sending', ?) ON CONFLICT (message_id) "
            "DO UPDATE SET since = excluded.since WHERE state = 'sending' AND since < ?",
            [message_id, now, now - lease],
        ).rowcount
        if claimed:
            return now
        (state,) = ledger.execute("SELECT state FROM mail WHERE message_id = ?", [message_id]).fetchone()
    if state == "sending":
        raise TemporaryMailError(f"{message_id} is being sent by another process; try again in {lease:g} s")
    return None


def _settle(message_id: str, claim: float, sent: bool) -> None:
    """Turn a claim into "sent", or give it back. What another process has written since then stays."""
    with closing(_ledger()) as ledger, ledger:
        if sent:
            ledger.execute("UPDATE mail SET state = 'sent' WHERE message_id = ?", [message_id])
        else:
            ledger.execute(
                "DELETE FROM mail WHERE message_id = ? AND state = 'sending' AND since = ?",
                [message_id, claim],
            )
