"""Mail over a real SMTP conversation: sent once, and each failure is told apart."""

import os
import random
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller, UnixSocketController
from aiosmtpd.handlers import Mailbox, Sink
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr, ValidationError
from sqlalchemy import text as sql
from sqlalchemy import update

from lab.mail_server import Fault, fail_next, history, mail_server, received
from services import mail_ledger
from services.database import engine, writing
from services.mail import PermanentMailError, SentMail, TemporaryMailError, send_email
from services.models import MailEntry
from settings import ROOT, Settings, settings
from tests.unit.conftest import POSTGRES, no_file_over
from tests.unit.test_database import in_processes
from tests.unit.test_mail_message import CONTENTS, HEADERS, random_subject

DEADLINE = 30.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A sandbox folder of its own; pytest's would be too long for the path of a socket on some systems."""
    with TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def mail_settings(shop: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the settings for mail as they are with an empty .env, but for the place of the server's socket."""
    monkeypatch.setattr(settings, "sandbox_folder", folder)
    for name, field in Settings.model_fields.items():
        if name.startswith(("smtp_", "mail_")):
            monkeypatch.setattr(settings, name, field.default)


@pytest.fixture
def server(folder: Path) -> Iterator[Path]:
    with mail_server(folder):
        yield folder


def send(**changes: Any) -> SentMail:
    mail = {"unique_id": "task-1", "to": "ada@example.org", "subject": "Hello", "body": "Good day.\n"}
    return send_email(**(mail | changes))


def eventually(check: Callable[[], object]) -> None:
    """Wait until `check` is true, or fail."""
    end = time.monotonic() + DEADLINE
    while not check():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def answers(folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(folder / "smtp.sock")) == 0


def text_of(message: EmailMessage, kind: str = "plain") -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def test_a_mail_arrives_with_its_text_and_names_its_task(server: Path):
    sent = send()
    (message,) = received(server)
    assert sent == {
        "message_id": "<task-1@localhost>",
        "recipients": ["ada@example.org"],
        "already_sent": False,
    }
    assert message["Message-ID"] == "<task-1@localhost>"
    assert message["From"] == "learn-celery@localhost"
    assert message["To"] == "ada@example.org"
    assert message["Subject"] == "Hello"
    assert text_of(message) == "Good day.\n"


def test_other_alphabets_long_lines_and_dots_arrive_unchanged(server: Path):
    body = "你好 世界\n.\n..two dots\n" + "x" * 5000 + "\n"
    send(subject="订单 №1 🎉 " + "long " * 50, body=body)
    (message,) = received(server)
    assert str(message["Subject"]).startswith("订单 №1 🎉 long")
    assert text_of(message) == body


def test_many_random_subjects_arrive_through_a_server_exactly_as_they_were_sent(server: Path):
    numbers = random.Random(8)
    subjects = {f"task-{number}": random_subject(numbers) for number in range(200)}
    for unique_id, subject in subjects.items():
        send(unique_id=unique_id, subject=subject)
    arrived = {str(mail["Message-ID"]): mail for mail in received(server)}
    for unique_id, subject in subjects.items():
        mail = arrived[f"<{unique_id}@localhost>"]
        assert [name for name in mail if not name.startswith(("Content-", "MIME-"))] == HEADERS
        assert mail["Subject"] == subject


def test_a_subject_that_hides_a_header_arrives_as_it_was_typed(server: Path):
    send(subject="=?utf-8?q?a=0AX-Evil:_1?= b")
    (message,) = received(server)
    assert "X-Evil" not in message
    assert message["Subject"] == "=?utf-8?q?a=0AX-Evil:_1?= b"


def test_attachments_of_every_type_arrive_through_a_server_byte_by_byte(server: Path, shop: Path):
    for name, (_, content) in CONTENTS.items():
        (shop / name).write_bytes(content)
    send(attachments=list(CONTENTS))
    (message,) = received(server)
    arrived = [(part.get_filename(), part.get_payload(decode=True)) for part in message.iter_attachments()]
    assert arrived == [(name, content) for name, (_, content) in CONTENTS.items()]


def test_a_mail_may_have_html_and_a_file(server: Path, shop: Path):
    (shop / "chart.png").write_bytes(b"\x89PNG")
    send(html="<p>Good day.</p>", attachments=["chart.png"])
    (message,) = received(server)
    assert text_of(message, "html") == "<p>Good day.</p>\n"
    (attachment,) = message.iter_attachments()
    assert attachment.get_filename() == "chart.png"
    assert attachment.get_content_type() == "image/png"
    assert attachment.get_payload(decode=True) == b"\x89PNG"


def test_several_people_get_one_mail_and_each_only_once(server: Path):
    sent = send(to=["ada@example.org", "bob@example.org", "ada@example.org"])
    (message,) = received(server)
    assert sent["recipients"] == ["ada@example.org", "bob@example.org"]
    assert message["To"] == "ada@example.org, bob@example.org"


def test_the_same_task_sends_once_and_says_so(any_shop: Path, server: Path):
    send()
    assert send()["already_sent"] is True
    assert history(server) == ["kept"]


def test_another_task_sends_the_same_text_again(server: Path):
    send(unique_id="task-1")
    send(unique_id="task-2")
    assert history(server) == ["kept", "kept"]


def test_of_many_at_the_same_moment_one_sends(any_shop: Path, server: Path):
    def one_worker(number: int) -> str:
        try:
            return "already" if send()["already_sent"] else "sent"
        except TemporaryMailError:
            return "busy"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(one_worker, range(8)))
    assert outcomes.count("sent") == 1
    assert history(server) == ["kept"]


def test_of_many_processes_at_the_same_moment_one_sends_also_after_the_mail_was_sent(
    any_shop: Path, server: Path
):
    def deliver(number: int) -> None:
        with suppress(TemporaryMailError):  # "is being sent by another process"
            send()

    for _ in range(2):  # a message may come again, to several workers, after its task has finished
        in_processes(4, deliver)
        assert history(server) == ["kept"]
    assert send()["already_sent"] is True


@pytest.mark.parametrize(
    ("fault", "expected", "text"),
    [
        ("421", TemporaryMailError, "MAIL_FROM='learn-celery@localhost': not accepted now: 421"),
        ("450", TemporaryMailError, "to='ada@example.org': not accepted now: 450"),
        ("550", PermanentMailError, "to='ada@example.org': refused: 550 5.1.1 No such mailbox"),
        ("close", TemporaryMailError, "does not answer: .*closed"),
        ("hang", TemporaryMailError, "does not answer: .*timed out"),
    ],
)
def test_a_failure_is_told_and_the_next_try_sends_once(
    server: Path, fault: Fault, expected: type[Exception], text: str
):
    settings.smtp_timeout_seconds = 1.0 if fault == "hang" else DEADLINE
    fail_next(server, fault)
    with pytest.raises(expected, match=text):
        send()
    assert received(server) == []
    settings.smtp_timeout_seconds = DEADLINE
    assert send()["already_sent"] is False
    assert send()["already_sent"] is True
    assert history(server) == [fault, "kept"]


def test_if_one_of_several_is_refused_nobody_gets_the_mail(server: Path):
    with pytest.raises(PermanentMailError, match=r"to='nobody@example\.org': refused: 550"):
        send(to=["ada@example.org", "nobody@example.org"])
    assert received(server) == []


def test_a_server_that_is_away_is_a_temporary_failure_with_the_remedy(folder: Path):
    with pytest.raises(TemporaryMailError, match=r"smtp.sock does not answer.*\./learn up.*SMTP_HOST"):
        send()
    with mail_server(folder):
        assert send()["already_sent"] is False


def test_a_refused_port_is_a_temporary_failure(folder: Path):
    settings.smtp_host, settings.smtp_port = "127.0.0.1", free_port()
    with pytest.raises(TemporaryMailError, match=r"127\.0\.0\.1 does not answer"):
        send()


def test_a_server_that_greets_with_an_error_is_told_apart(folder: Path):
    for greeting, expected in [(b"421 busy\r\n", TemporaryMailError), (b"554 no\r\n", PermanentMailError)]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            settings.smtp_host, settings.smtp_port = listener.getsockname()
            greeter = threading.Thread(target=greet_and_close, args=(listener, greeting))
            greeter.start()
            with pytest.raises(expected, match=greeting.decode().strip()):
                send()
            greeter.join(DEADLINE)


def greet_and_close(listener: socket.socket, greeting: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(greeting)


def test_a_server_without_encryption_is_refused_when_encryption_is_asked_for(server: Path):
    settings.smtp_starttls = True
    with pytest.raises(PermanentMailError, match="STARTTLS"):
        send()
    assert history(server) == []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def company(folder: Path, certificate: Callable[[ssl.SSLContext], None]) -> Iterator[None]:
    """Run a server as a company has one: TCP, encryption, one user. The settings lead to it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate(context)
    controller = Controller(
        Mailbox(folder / "company"),
        hostname="127.0.0.1",
        port=free_port(),
        tls_context=context,
        require_starttls=True,
        auth_required=True,
        authenticator=lambda server, session, envelope, mechanism, data: AuthResult(
            success=data == LoginPassword(b"ada", b"right"), handled=False
        ),
    )
    settings.smtp_host, settings.smtp_port, settings.smtp_starttls = "localhost", controller.port, True
    settings.smtp_user, settings.smtp_password = "ada", SecretStr("right")
    controller.start()
    try:
        yield
    finally:
        controller.stop()


def signed(folder: Path, **changes: Any) -> Callable[[ssl.SSLContext], None]:
    """Return a certificate by the company's own authority. `ca.pem` is for those who trust that."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    return authority.issue_cert("localhost", **changes).configure_cert


def self_signed(folder: Path) -> Callable[[ssl.SSLContext], None]:
    """Return a certificate that nobody but its own key has signed. `ca.pem` is a copy of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "ca.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return lambda context: context.load_cert_chain(pem, private)


@pytest.fixture
def company_server(folder: Path) -> Iterator[None]:
    with company(folder, signed(folder)):
        yield


def test_a_company_server_gets_the_password_over_an_encrypted_connection(
    company_server: None, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    send()
    assert len(os.listdir(folder / "company" / "new")) == 1


def test_a_wrong_password_is_a_permanent_failure(
    company_server: None, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    settings.smtp_password = SecretStr("wrong")
    with pytest.raises(PermanentMailError, match="login with SMTP_USER and SMTP_PASSWORD: refused: 535"):
        send()
    assert os.listdir(folder / "company" / "new") == []


@pytest.mark.parametrize("kind", [signed, self_signed])
def test_a_certificate_that_is_not_trusted_gets_no_password_and_the_remedy_works(
    folder: Path, kind: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with company(folder, kind(folder)):
        with pytest.raises(PermanentMailError, match=r"CERTIFICATE_VERIFY_FAILED.*SSL_CERT_FILE") as refused:
            send()
        assert "SMTP_HOST" not in str(refused.value)
        assert os.listdir(folder / "company" / "new") == []
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        assert send()["already_sent"] is False
        assert len(os.listdir(folder / "company" / "new")) == 1


def test_a_certificate_file_that_does_not_help_is_named(
    company_server: None, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    trustme.CA().cert_pem.write_to_path(str(folder / "other.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "other.pem"))
    with pytest.raises(PermanentMailError, match=rf"SSL_CERT_FILE \(now: {folder}/other\.pem\)"):
        send()


def test_a_certificate_of_another_name_is_no_matter_of_trust(
    company_server: None, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    settings.smtp_host = "127.0.0.1"
    with pytest.raises(PermanentMailError, match="SMTP_HOST must be a name that the certificate has"):
        send()


def test_an_expired_certificate_is_no_matter_of_trust(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    expired = pytest.raises(PermanentMailError, match="Whoever runs the server must renew its certificate")
    with company(folder, signed(folder, not_after=yesterday)), expired:
        send()


@pytest.mark.parametrize(
    ("user", "password", "text"),
    [
        ("Jürgen", "right", "^SMTP_USER has a character"),
        ("ada", "pässword", "^SMTP_PASSWORD has a character"),
    ],
)
def test_a_login_that_smtplib_cannot_send_is_refused_by_the_name_of_its_setting(
    server: Path, user: str, password: str, text: str
):
    settings.smtp_user, settings.smtp_password = user, SecretStr(password)
    with pytest.raises(PermanentMailError, match=text) as refused:
        send()
    assert password not in str(refused.value)
    assert history(server) == []


def test_a_login_at_a_server_that_takes_none_names_the_settings(server: Path):
    settings.smtp_user, settings.smtp_password = "ada", SecretStr("right")
    with pytest.raises(PermanentMailError, match="takes no login; unset SMTP_USER and SMTP_PASSWORD"):
        send()
    assert history(server) == []


@contextmanager
def scripted_server(*answers: bytes) -> Iterator[None]:
    """Answer the first client with `answers`, one for each of its lines, and hang up."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        settings.smtp_host, settings.smtp_port = listener.getsockname()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                for text in answers:
                    connection.sendall(text)
                    lines.readline()

        talk = pool.submit(answer)
        yield
        talk.result(DEADLINE)


def test_a_server_with_other_kinds_of_login_is_a_permanent_failure():
    settings.smtp_user, settings.smtp_password = "ada", SecretStr("right")
    failure = pytest.raises(PermanentMailError, match=r"No suitable authentication method.*SMTP_USER")
    with scripted_server(b"220 hello\r\n", b"250-here\r\n250 AUTH GSSAPI\r\n"), failure:
        send()


def test_a_login_that_is_not_accepted_now_is_a_temporary_failure():
    settings.smtp_user, settings.smtp_password = "ada", SecretStr("right")
    failure = pytest.raises(TemporaryMailError, match=r"login .* not accepted now: 454")
    said = [b"220 hello\r\n", b"250-here\r\n250 AUTH PLAIN\r\n", b"454 4.7.0 try later\r\n"]
    with scripted_server(*said), failure:
        send()


def test_a_server_of_another_kind_is_a_permanent_failure_that_names_the_settings():
    failure = pytest.raises(PermanentMailError, match="does not speak SMTP; correct SMTP_HOST and SMTP_PORT")
    with scripted_server(b"HTTP/1.1 400 Bad Request\r\n"), failure:
        send()


@pytest.mark.parametrize("host", ["mail..example.org", "x" * 64 + ".example.org", "\udcff"])
def test_a_host_that_cannot_be_one_is_a_permanent_failure_that_names_the_setting(host: str):
    settings.smtp_host = host
    with pytest.raises(PermanentMailError, match=r"^SMTP_HOST=.*not the name of a host"):
        send()


def test_nobody_is_told_to_set_what_is_set(folder: Path):
    with pytest.raises(TemporaryMailError, match=r"\./learn up, or set SMTP_HOST"):
        send()
    settings.smtp_host, settings.smtp_port = "127.0.0.1", free_port()
    with pytest.raises(TemporaryMailError, match=rf"SMTP_PORT={settings.smtp_port} are right") as away:
        send()
    assert "set SMTP_HOST" not in str(away.value)


@pytest.mark.parametrize(
    "said",
    [
        [b"220 hello\r\n"],
        [b"220 hello\r\n", b"250 here\r\n"],
        [b"220 hello\r\n", b"250 here\r\n", b"250 sender ok\r\n"],
        [b"220 hello\r\n", b"250 here\r\n", b"250 sender ok\r\n", b"250 recipient ok\r\n"],
        [b"220 hello\r\n", b"250 here\r\n", b"250 sender ok\r\n", b"250 recipient ok\r\n", b"354 go on\r\n"],
        [b"220 hello\r\n250"],
    ],
)
def test_a_server_that_dies_in_the_middle_is_a_temporary_failure_and_the_claim_is_given_back(
    folder: Path, said: list[bytes]
):
    with scripted_server(*said), pytest.raises(TemporaryMailError, match="does not answer"):
        send()
    settings.smtp_host = None
    with mail_server(folder):
        assert send()["already_sent"] is False


class Envelopes(Sink):
    """Accepts every mail, and keeps to whom it is addressed."""

    def __init__(self) -> None:
        self.senders: list[str | None] = []
        self.recipients: list[str] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.senders.append(envelope.mail_from)
        self.recipients += envelope.rcpt_tos
        return "250 OK"


@contextmanager
def serving(handler: Sink) -> Iterator[None]:
    controller = UnixSocketController(handler, settings.mail_socket)
    controller.start()
    try:
        yield
    finally:
        controller.stop()


def test_the_server_is_told_the_addresses_that_were_checked():
    handler = Envelopes()
    people = ["!#$%&'*+/?=^_`{|}~-@example.org", "a.b+c@x-1.example.org", "ada@bücher.example"]
    settings.mail_from = "shop@bücher.example"
    with serving(handler):
        sent = send(to=people)
    assert handler.senders == ["shop@xn--bcher-kva.example"]
    assert handler.recipients == sent["recipients"] == [*people[:2], "ada@xn--bcher-kva.example"]


class NoGoodbye(Sink):
    """Accepts the mail, and hangs up when the client says QUIT."""

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert server.transport is not None
        server.transport.close()
        return "221 Bye"


def test_a_mail_that_was_accepted_is_sent_however_the_conversation_ends(folder: Path):
    with serving(NoGoodbye()):
        assert send()["already_sent"] is False
    assert send()["already_sent"] is True


class Slow(Sink):
    """Calls `meanwhile` when it is asked for a recipient, or when it has the text."""

    def __init__(self, step: str, meanwhile: Callable[[], object]) -> None:
        self.texts = 0
        self.step, self.meanwhile = step, meanwhile

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.rcpt_tos.append(address)
        if self.step == "RCPT":
            self.meanwhile()
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.texts += 1
        if self.step == "DATA":
            self.meanwhile()
        return "250 OK"


def test_who_lost_the_claim_in_a_slow_conversation_does_not_send_the_text(any_shop: Path):
    def another_process_takes_over() -> None:
        end_leases()
        assert mail_ledger.claim("<task-1@localhost>", timedelta(minutes=1))

    handler = Slow("RCPT", another_process_takes_over)
    with serving(handler), pytest.raises(TemporaryMailError, match="so slow that another process sends"):
        send()
    assert handler.texts == 0
    with serving(handler), pytest.raises(TemporaryMailError, match="is being sent by another process"):
        send()  # the claim of the other one has not been given back


@pytest.mark.parametrize("step", ["RCPT", "DATA"])
def test_no_transaction_is_open_while_the_server_is_talking(any_shop: Path, step: str):
    open_connections: list[int] = []

    def count() -> None:
        open_connections.append(engine().pool.checkedout())  # type: ignore[attr-defined]
        with writing() as session:  # on SQLite this would wait for an open transaction, for long
            session.execute(sql("DELETE FROM rejects"))

    with serving(Slow(step, count)):
        send()
    assert open_connections == [0]


def test_without_the_tables_nothing_is_sent_and_the_error_says_what_to_do(any_shop: Path, server: Path):
    with writing() as session:
        session.execute(sql("DROP TABLE sent_mails"))
    with pytest.raises(RuntimeError, match=r"(?s)sent_mails.*run `alembic upgrade head`"):
        send()
    assert history(server) == []


def test_a_database_that_is_away_is_a_temporary_failure_and_nothing_is_sent(
    server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(settings, "database_url", f"sqlite:///{tmp_path}/away/database.sqlite")
    with pytest.raises(TemporaryMailError, match=r"ledger .* cannot be used: unable to open .* Nothing"):
        send()
    monkeypatch.setattr(settings, "database_url", f"postgresql+psycopg://me@127.0.0.1:{free_port()}/shop")
    if POSTGRES:  # only then its driver is installed
        with pytest.raises(TemporaryMailError, match=r"cannot be used: connection failed.*//me@127"):
            send()
    assert history(server) == []


def test_a_full_disk_is_a_temporary_failure_and_nothing_is_sent(server: Path):
    with no_file_over(0), pytest.raises(TemporaryMailError, match=r"ledger .* cannot be used: .*\bdisk\b"):
        send()
    assert history(server) == []
    assert send()["already_sent"] is False


def test_a_ledger_that_fails_after_the_server_accepted_does_not_make_the_mail_look_unsent(
    caplog: pytest.LogCaptureFixture,
):
    with ExitStack() as full_disk:
        handler = Slow("DATA", lambda: full_disk.enter_context(no_file_over(0)))
        with serving(handler):
            assert send()["already_sent"] is False
    assert re.search("<task-1@localhost>: the ledger of sent mails was not updated: .*disk", caplog.text)
    with pytest.raises(TemporaryMailError, match="is being sent by another process"):
        send()  # our claim stands until its lease ends: the ledger does not know better
    assert handler.texts == 1


def test_a_process_that_lost_its_lease_does_not_undo_the_other_ones_work(any_shop: Path, server: Path):
    settings.smtp_timeout_seconds = 1.0
    fail_next(server, "hang")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(send)
        eventually(lambda: history(server) == ["hang"])
        end_leases()
        assert send()["already_sent"] is False
        assert isinstance(slow.exception(DEADLINE), TemporaryMailError)
    assert send()["already_sent"] is True
    assert history(server) == ["hang", "kept"]


def end_leases() -> None:
    """Let an hour pass in the ledger."""
    with writing() as session:
        session.execute(update(MailEntry).values(claimed_at=datetime.now(UTC) - timedelta(hours=1)))


CHILD = """
import sys
from services.mail import send_email
send_email("task-1", "ada@example.org", "Hello", "Good day.")
"""


def test_a_process_that_dies_after_the_server_accepted_sends_again_and_one_copy_is_kept(
    any_shop: Path, server: Path
):
    fail_next(server, "accept-hang")
    environment = {
        "SANDBOX_DIR": str(server),
        "STATE_DIR": str(settings.state_dir),
        "DATABASE_URL": settings.database,
        "SMTP_TIMEOUT_SECONDS": str(DEADLINE),
    }
    child = subprocess.Popen([sys.executable, "-c", CHILD], cwd=ROOT, env=os.environ | environment)
    eventually(lambda: received(server))
    child.send_signal(signal.SIGKILL)
    child.wait(DEADLINE)

    # The claim of the dead process holds for its lease. Then the mail goes out again.
    settings.smtp_timeout_seconds = DEADLINE
    with pytest.raises(TemporaryMailError, match="is being sent by another process; try again in 120 s"):
        send()
    end_leases()
    assert send()["already_sent"] is False
    assert history(server) == ["accept-hang", "kept", "kept already"]
    assert len(received(server)) == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"to": "ada@example.org\nBcc: eve@example.org"}, "to='ada"),
        ({"subject": "Hi\nBcc: eve@example.org"}, "subject='Hi"),
        ({"unique_id": "a>\nb"}, "unique_id='a>"),
        ({"attachments": ["none.png"]}, "attachments='none.png'"),
    ],
)
def test_bad_arguments_are_a_permanent_failure_and_the_server_hears_nothing(
    server: Path, changes: dict[str, Any], text: str
):
    with pytest.raises(PermanentMailError, match=text):
        send(**changes)
    assert history(server) == []
    assert send()["already_sent"] is False


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"smtp_user": "ada"}, "set SMTP_PASSWORD too"),
        ({"smtp_password": "secret"}, "set SMTP_USER too"),
        ({"smtp_user": "ada", "smtp_password": "secret"}, "SMTP_STARTTLS=true"),
        ({"smtp_port": 0}, "smtp_port"),
    ],
)
def test_mail_settings_that_do_not_fit_are_refused(values: dict[str, Any], text: str):
    with pytest.raises(ValidationError, match=text):
        Settings(**values)


def test_a_fault_that_the_mail_server_does_not_know_is_refused(folder: Path):
    with pytest.raises(ValueError, match="fault='500': unknown; use one of 421, 450"):
        fail_next(folder, "500")  # type: ignore[arg-type]


def test_the_mail_server_as_a_process_ends_on_sigterm_and_leaves_no_socket(folder: Path):
    child = subprocess.Popen([sys.executable, "-m", "lab.mail_server", str(folder)], cwd=ROOT)
    eventually(lambda: answers(folder))
    send()
    child.terminate()
    assert child.wait(DEADLINE) == 0
    assert not (folder / "smtp.sock").exists()
    assert len(received(folder)) == 1


def test_the_mail_server_starts_over_the_stale_socket_of_a_crash(folder: Path):
    child = subprocess.Popen([sys.executable, "-m", "lab.mail_server", str(folder)], cwd=ROOT)
    eventually(lambda: answers(folder))
    child.kill()
    child.wait(DEADLINE)
    assert (folder / "smtp.sock").exists()
    with mail_server(folder):
        send()
    assert history(folder) == ["kept"]


def test_a_mail_server_whose_disk_is_full_asks_to_try_again_later(folder: Path):
    child = subprocess.Popen(
        [sys.executable, "-m", "lab.mail_server", str(folder)],
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    eventually(lambda: answers(folder))
    with pytest.raises(TemporaryMailError, match=r"not accepted now: 452 4\.3\.1"):
        send()
    child.terminate()
    child.wait(DEADLINE)
    with mail_server(folder):
        assert send()["already_sent"] is False
    assert history(folder) == ["kept"]


def test_other_users_cannot_reach_a_folder_that_the_server_made(folder: Path):
    with mail_server(folder / "new"):
        assert (folder / "new").stat().st_mode & 0o077 == 0
