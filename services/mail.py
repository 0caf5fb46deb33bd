"""Send mail over SMTP, and tell apart what is worth a retry.

A mail is work with an effect in the outside world, and a queue may deliver the same task twice. So each
mail has a Message-ID that is made from the caller's id, and a ledger remembers which ones have been sent.
One gap stays, for everybody who sends mail: when the process dies after the server has accepted the mail
and before the ledger knows, the mail is sent again. It has the same Message-ID, and most servers keep one.
"""

import logging
import smtplib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from typing import TypedDict

from sqlalchemy.exc import DBAPIError, OperationalError

from services import mail_ledger
from services.mail_message import Mail, compose
from settings import settings, without_password

logger = logging.getLogger(__name__)

# OpenSSL's numbers for why a certificate is refused.
NOT_TRUSTED = {18, 19, 20, 21}  # self-signed, or from an authority that nobody here knows
OTHER_NAME = {62, 64}


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
    `html` the same in HTML. `attachments` are paths in the data folder. The domain of an address may have
    letters of all alphabets.

    All recipients get the mail or none: the text is sent only after the server has accepted each of them.

    Raises `PermanentMailError` for bad arguments and for a 5xx answer, and `TemporaryMailError` when the
    server or the database is away, silent, breaks off or answers 4xx, or while another process is sending
    the same mail. Raises `RuntimeError` if the database has no table for the ledger.
    """
    try:
        mail = compose(unique_id, to, subject, body, html, attachments)
    except ValueError as error:
        raise PermanentMailError(str(error)) from error
    claim = _claim(mail)
    if claim is not None:
        try:
            _send(mail, claim)
        except BaseException:  # whatever it was, the next try need not wait for our lease to end
            with _logged(mail):
                mail_ledger.give_back(mail.message_id, claim)
            raise
    return {"message_id": mail.message_id, "recipients": mail.recipients, "already_sent": claim is None}


# --- The ledger -----------------------------------------------------------------------------------------


def _claim(mail: Mail) -> str | None:
    # The last steps of a conversation wait three times at most, and the claim is renewed before them.
    lease = timedelta(seconds=4 * settings.smtp_timeout_seconds)
    try:
        with _ledger_needed():
            return mail_ledger.claim(mail.message_id, lease)
    except mail_ledger.MailBeingSent as error:
        raise TemporaryMailError(
            f"{mail.message_id} is being sent by another process; try again in {lease.total_seconds():g} s"
        ) from error


def _renew(mail: Mail, claim: str) -> None:
    with _ledger_needed():
        if not mail_ledger.renew(mail.message_id, claim):
            raise TemporaryMailError(
                f"{mail.message_id}: the mail server was so slow that another process sends this mail now"
            )


@contextmanager
def _ledger_needed() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:  # the database is away, locked or full
        raise TemporaryMailError(
            f"the ledger of sent mails cannot be used: {_in_one_line(error)}. Nothing was sent; see whether "
            f"the database {without_password(settings.database)} answers and has room"
        ) from error


@contextmanager
def _logged(mail: Mail) -> Iterator[None]:
    """Go on without the ledger: its trouble must not hide whether the mail was accepted."""
    try:
        yield
    except (DBAPIError, RuntimeError) as error:  # the latter: the tables are no longer up to date
        reason = _in_one_line(error)
        logger.warning("%s: the ledger of sent mails was not updated: %s", mail.message_id, reason)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "orig", error)).split())


# --- The conversation with the server -------------------------------------------------------------------


def _send(mail: Mail, claim: str) -> None:
    with _conversation() as server:
        _expect_success(f"MAIL_FROM={mail.sender!r}", server.mail(mail.sender))
        for address in mail.recipients:
            _expect_success(f"to={address!r}", server.rcpt(address))
        _renew(mail, claim)
        _expect_success(mail.message_id, server.data(mail.content))
        with _logged(mail):  # at once: how they part no longer matters
            mail_ledger.record_sent(mail.message_id, claim)


@contextmanager
def _conversation() -> Iterator[smtplib.SMTP]:
    """Talk to the mail server, encrypted and logged in as the settings say."""
    _check_login()
    try:
        with closing(_connect()) as server:
            server.ehlo_or_helo_if_needed()
            _secure(server)
            yield server
            with suppress(smtplib.SMTPServerDisconnected):
                server.quit()
    except OSError as error:  # smtplib's own errors are OSErrors too
        raise _explained(error) from error


def _check_login() -> None:
    """Refuse what smtplib cannot send: its error would name neither the setting nor the remedy."""
    password = settings.smtp_password.get_secret_value() if settings.smtp_password else ""
    for name, value in (("SMTP_USER", settings.smtp_user or ""), ("SMTP_PASSWORD", password)):
        if not value.isascii():
            raise PermanentMailError(
                f"{name} has a character that is not ASCII, and Python's smtplib cannot send it; "
                "choose another one at the mail server, of ASCII characters alone"
            )


def _connect() -> _Connection:
    # Without a name, smtplib looks up this machine's, which can take seconds.
    own_name = None if settings.smtp_host else "localhost"
    try:
        return _Connection(_host(), settings.smtp_port, own_name, timeout=settings.smtp_timeout_seconds)
    except UnicodeError as error:
        raise PermanentMailError(f"SMTP_HOST={_host()!r}: not the name of a host: {error}") from error


def _host() -> str:
    return settings.smtp_host or str(settings.mail_socket)


def _secure(server: smtplib.SMTP) -> None:
    if settings.smtp_starttls:
        if not server.has_extn("starttls"):
            raise PermanentMailError(
                f"mail server {_host()} offers no encryption (STARTTLS); correct SMTP_HOST and SMTP_PORT, "
                "or set SMTP_STARTTLS=false, and the mail travels unencrypted"
            )
        server.starttls(context=ssl.create_default_context())
        server.ehlo_or_helo_if_needed()  # a server may offer other things now
    if settings.smtp_user and settings.smtp_password:
        if not server.has_extn("auth"):
            raise PermanentMailError(
                f"mail server {_host()} takes no login; unset SMTP_USER and SMTP_PASSWORD, "
                "or correct SMTP_HOST and SMTP_PORT"
            )
        server.login(settings.smtp_user, settings.smtp_password.get_secret_value())


# --- What the server's answers mean ---------------------------------------------------------------------


def _expect_success(what: str, reply: tuple[int, bytes]) -> None:
    code, text = reply
    if not 200 <= code < 300:
        raise _refused(what, code, text)


def _refused(what: str, code: int, text: bytes | str) -> TemporaryMailError | PermanentMailError:
    answer = text if isinstance(text, str) else text.decode(errors="replace")
    if 400 <= code < 500:
        return TemporaryMailError(f"{what}: not accepted now: {code} {answer}")
    return PermanentMailError(f"{what}: refused: {code} {answer}")


def _explained(error: OSError) -> TemporaryMailError | PermanentMailError:
    """Return our error for one of the network, of TLS or of smtplib, with what to do about it."""
    server = f"mail server {_host()}"
    match error:
        case smtplib.SMTPAuthenticationError():
            login = f"{server}: login with SMTP_USER and SMTP_PASSWORD"
            return _refused(login, error.smtp_code, error.smtp_error)
        case smtplib.SMTPResponseException(smtp_code=-1):
            return PermanentMailError(f"{server} does not speak SMTP; correct SMTP_HOST and SMTP_PORT")
        case smtplib.SMTPResponseException():
            return _refused(server, error.smtp_code, error.smtp_error)
        case smtplib.SMTPServerDisconnected() | ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return TemporaryMailError(f"{server} does not answer: {error}. {_remedy()}")
        case smtplib.SMTPException():
            return PermanentMailError(f"{server}: {error} Check SMTP_USER, SMTP_HOST and SMTP_PORT")
        case ssl.SSLCertVerificationError():
            return PermanentMailError(f"{server}: {error}. {_remedy_for(error)}")
        case ssl.SSLError():
            return PermanentMailError(f"{server}: {error}; check SMTP_HOST and SMTP_PORT")
    return TemporaryMailError(f"{server} does not answer: {error}. {_remedy()}")


def _remedy() -> str:
    if settings.smtp_host:
        return f"See whether it runs, and whether SMTP_HOST and SMTP_PORT={settings.smtp_port} are right"
    return "Start the sandbox's own with ./learn up, or set SMTP_HOST"


def _remedy_for(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in NOT_TRUSTED:
        trusted = ssl.get_default_verify_paths().cafile or "no file"
        return (
            "If it is the right server, write its certificate, or that of the authority that signed it, into "
            "a PEM file, and start the worker with the file's path in the environment variable "
            f"SSL_CERT_FILE (now: {trusted})"
        )
    if error.verify_code in OTHER_NAME:
        return "SMTP_HOST must be a name that the certificate has"
    return "Whoever runs the server must renew its certificate"
