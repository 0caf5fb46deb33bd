"""Mail over a real SMTP conversation: sent once, and each failure is told apart."""

import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from email.message import EmailMessage
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller, UnixSocketController
from aiosmtpd.handlers import Mailbox, Sink
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from pydantic import SecretStr, ValidationError

from lab.mail_server import Fault, fail_next, history, mail_server, received
from services.mail import PermanentMailError, SentMail, TemporaryMailError, send_email
from settings import ROOT, Settings

DEADLINE = 30.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A sandbox folder of its own; pytest's would be too long for the path of a socket on some systems."""
    with TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (folder / "data").mkdir()
    settings = Settings(sandbox_dir=folder, state_dir=folder / "state", data_dir=folder / "data")
    monkeypatch.setattr("services.mail.settings", settings)
    return settings


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


def test_a_mail_may_have_html_and_a_file(server: Path):
    (server / "data" / "chart.png").write_bytes(b"\x89PNG")
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


def test_the_same_task_sends_once_and_says_so(server: Path):
    send()
    assert send()["already_sent"] is True
    assert history(server) == ["kept"]


def test_another_task_sends_the_same_text_again(server: Path):
    send(unique_id="task-1")
    send(unique_id="task-2")
    assert history(server) == ["kept", "kept"]


def test_of_many_at_the_same_moment_one_sends(server: Path):
    def one_worker(number: int) -> str:
        try:
            return "already" if send()["already_sent"] else "sent"
        except TemporaryMailError:
            return "busy"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(one_worker, range(8)))
    assert outcomes.count("sent") == 1
    assert history(server) == ["kept"]


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
    server: Path, settings: Settings, fault: Fault, expected: type[Exception], text: str
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


def test_a_refused_port_is_a_temporary_failure(folder: Path, settings: Settings):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    settings.smtp_host, settings.smtp_port = "127.0.0.1", port
    with pytest.raises(TemporaryMailError, match=r"127\.0\.0\.1 does not answer"):
        send()


def test_a_server_that_greets_with_an_error_is_told_apart(folder: Path, settings: Settings):
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


def test_a_server_without_encryption_is_refused_when_encryption_is_asked_for(
    server: Path, settings: Settings
):
    settings.smtp_starttls = True
    with pytest.raises(PermanentMailError, match="STARTTLS"):
        send()
    assert history(server) == []


@pytest.fixture
def company_server(folder: Path, settings: Settings) -> Iterator[None]:
    """A server as a company has one: TCP, encryption, one user. `ca.pem` is for those who trust it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    controller = Controller(
        Mailbox(folder / "company"),
        hostname="127.0.0.1",
        port=port,
        tls_context=context,
        require_starttls=True,
        auth_required=True,
        authenticator=lambda server, session, envelope, mechanism, data: AuthResult(
            success=data == LoginPassword(b"ada", b"right"), handled=False
        ),
    )
    settings.smtp_host, settings.smtp_port, settings.smtp_starttls = "localhost", port, True
    settings.smtp_user, settings.smtp_password = "ada", SecretStr("right")
    controller.start()
    try:
        yield
    finally:
        controller.stop()


def test_a_company_server_gets_the_password_over_an_encrypted_connection(
    company_server: None, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    send()
    assert len(os.listdir(folder / "company" / "new")) == 1


def test_a_wrong_password_is_a_permanent_failure(
    company_server: None, folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    settings.smtp_password = SecretStr("wrong")
    with pytest.raises(PermanentMailError, match="mail server localhost: refused: 535"):
        send()
    assert os.listdir(folder / "company" / "new") == []


def test_a_server_whose_certificate_is_not_trusted_gets_no_password(company_server: None, folder: Path):
    with pytest.raises(PermanentMailError, match="CERTIFICATE_VERIFY_FAILED"):
        send()
    assert os.listdir(folder / "company" / "new") == []


class NoGoodbye(Sink):
    """Accepts the mail, and hangs up when the client says QUIT."""

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert server.transport is not None
        server.transport.close()
        return "221 Bye"


def test_a_mail_that_was_accepted_is_sent_however_the_conversation_ends(folder: Path, settings: Settings):
    controller = UnixSocketController(NoGoodbye(), settings.mail_socket)
    controller.start()
    try:
        assert send()["already_sent"] is False
    finally:
        controller.stop()
    assert send()["already_sent"] is True


def test_a_process_that_lost_its_lease_does_not_undo_the_other_ones_work(server: Path, settings: Settings):
    settings.smtp_timeout_seconds = 1.0
    fail_next(server, "hang")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(send)
        eventually(lambda: history(server) == ["hang"])
        end_leases(settings)
        assert send()["already_sent"] is False
        assert isinstance(slow.exception(DEADLINE), TemporaryMailError)
    assert send()["already_sent"] is True
    assert history(server) == ["hang", "kept"]


def end_leases(settings: Settings) -> None:
    """Let a minute pass in the ledger."""
    with closing(sqlite3.connect(settings.state_dir / "mail.sqlite3")) as ledger, ledger:
        ledger.execute("UPDATE mail SET since = since - 60")


CHILD = """
import sys
from services.mail import send_email
send_email("task-1", "ada@example.org", "Hello", "Good day.")
"""


def test_a_process_that_dies_after_the_server_accepted_sends_again_and_one_copy_is_kept(
    server: Path, settings: Settings
):
    fail_next(server, "accept-hang")
    environment = {
        "SANDBOX_DIR": str(server),
        "STATE_DIR": str(server / "state"),
        "SMTP_TIMEOUT_SECONDS": str(DEADLINE),
    }
    child = subprocess.Popen([sys.executable, "-c", CHILD], cwd=ROOT, env=os.environ | environment)
    eventually(lambda: received(server))
    child.send_signal(signal.SIGKILL)
    child.wait(DEADLINE)

    # The claim of the dead process holds for its lease. Then the mail goes out again.
    settings.smtp_timeout_seconds = DEADLINE
    with pytest.raises(TemporaryMailError, match="is being sent by another process; try again in 60 s"):
        send()
    end_leases(settings)
    assert send()["already_sent"] is False
    assert history(server) == ["accept-hang", "kept", "kept already"]
    assert len(received(server)) == 1


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "ada@",
        "@example.org",
        "ada@example..org",
        "ada lovelace@example.org",
        "Ada <ada@example.org>",
        "ada@example.org, bob@example.org",
        "ada@example.org\nBcc: everyone@example.org",
        "ada@example.org\n",
        "ada@example.org\r\nRCPT TO:<eve@example.org>",
        "ada@bücher.example",
        "a" * 250 + "@example.org",
    ],
)
def test_a_bad_address_is_refused_before_anything_is_sent(server: Path, address: str):
    with pytest.raises(PermanentMailError, match="not a mail address; give one address like") as refused:
        send(to=["bob@example.org", address])
    assert str(refused.value).startswith(f"to={address!r}: ")
    assert history(server) == []


@pytest.mark.parametrize(
    "subject", ["Hi\nBcc: eve@example.org", "Hi\r\n\r\nbody", "a\0b", "a\u2028b", "\ud800"]
)
def test_a_subject_with_a_line_break_is_refused(server: Path, subject: str):
    with pytest.raises(PermanentMailError, match="put it on one line") as refused:
        send(subject=subject)
    assert str(refused.value).startswith(f"subject={subject!r}: ")
    assert history(server) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"to": []}, "to=\\[\\]: nobody to send to"),
        ({"to": [f"user{n}@example.org" for n in range(3000)]}, "to has 3000 addresses; 50 are allowed"),
        ({"unique_id": "a>\nb"}, "unique_id='a>\\\\nb': use letters"),
        ({"unique_id": ""}, "unique_id='': use letters"),
        ({"body": "\ud800"}, "not valid Unicode"),
        ({"html": "\ud800"}, "not valid Unicode"),
        ({"attachments": ["../secret"]}, "attachments='../secret': '..' is not allowed"),
        ({"attachments": ["none.png"]}, "attachments='none.png': No such file"),
        ({"attachments": ["."]}, "attachments='.': Is a directory"),
        ({"attachments": ["big.bin"]}, "attachments='big.bin': more than 10,000,000 bytes"),
    ],
)
def test_bad_arguments_are_refused_by_name(server: Path, changes: dict[str, Any], text: str):
    with (server / "data" / "big.bin").open("wb") as big:
        big.truncate(10_000_001)
    with pytest.raises(PermanentMailError, match=text):
        send(**changes)
    assert history(server) == []


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


def test_other_users_cannot_reach_a_folder_that_the_server_made(folder: Path):
    with mail_server(folder / "new"):
        assert (folder / "new").stat().st_mode & 0o077 == 0
