"""Compose a mail, and read its bytes as the receiver will, before anybody sends them.

What to learn here: a check of the text that was given is not enough. Python's `EmailMessage` decodes what
looks like an encoded word (`=?utf-8?q?a=0Ab?=`) when a header is set, and a line break that was hidden in
it starts a header of the attacker's choice. So headers go out as they are written here, and the finished
bytes are parsed and compared with what was asked for: what is checked is what is sent.
"""

import mimetypes
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.header import Header
from email.message import EmailMessage, MIMEPart
from email.utils import format_datetime, localtime
from pathlib import Path

from services.paths import inside
from settings import settings

MAX_RECIPIENTS = 50
MAX_SUBJECT = 10_000  # characters; Python takes seconds to read a header that is much longer
MAX_ATTACHMENT_BYTES = 10_000_000

# Plain addresses of ASCII, as RFC 5321 has them: no spaces, no line breaks, no names, no lists, no quotes.
_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
ADDRESS = re.compile(rf"(?=.{{1,64}}@){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*", re.ASCII)
IDENTIFIER = re.compile(r"[\w+-]+(?:\.[\w+-]+)*", re.ASCII)

HEADERS = ["Message-ID", "Date", "From", "To", "Subject"]
PART_HEADERS = {"MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Content-Disposition"}


class _AsWritten(policy.EmailPolicy):
    """Keep each header as it is written. Python's own policies decode and encode it once more."""

    def header_store_parse(self, name: str, value: str) -> tuple[str, str]:
        return name, value


AS_WRITTEN = _AsWritten(linesep="\r\n", cte_type="7bit", refold_source="none")  # every server takes 7 bits


@dataclass(frozen=True)
class Mail:
    """A mail that is ready to be sent. Addresses are ASCII."""

    message_id: str
    sender: str
    recipients: list[str]
    content: bytes


@dataclass(frozen=True)
class _Attachment:
    name: str
    content_type: str
    charset: str | None
    content: bytes = field(repr=False)


def compose(
    unique_id: str,
    to: str | Sequence[str],
    subject: str,
    body: str,
    html: str | None = None,
    attachments: Sequence[str] = (),
) -> Mail:
    """Return a mail from MAIL_FROM. `services.mail.send_email` says what the arguments are.

    Raises `ValueError` that names the argument, if something is not allowed or would not arrive as given.
    """
    sender = _checked_address("MAIL_FROM", settings.mail_from)
    recipients = _checked_recipients(to)
    message_id = _message_id(unique_id, sender)
    texts = {"body": _checked_text("body", body)}
    if html is not None:
        texts["html"] = _checked_text("html", html)
    files = _read(attachments)
    content = _written(message_id, sender, recipients, _subject_header(subject), texts, files)
    given = {
        "unique_id": message_id,
        "MAIL_FROM": [sender],
        "to": recipients,
        "subject": subject,
        "body": texts["body"],
        "html": texts.get("html"),
        "attachments": files,
        "parts": len(texts) + len(files),
    }
    _check_as_received(content, given)
    return Mail(message_id, sender, recipients, content)


# --- Arguments ------------------------------------------------------------------------------------------


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _message_id(unique_id: str, sender: str) -> str:
    if len(unique_id) > 200 or not IDENTIFIER.fullmatch(unique_id):
        raise ValueError(
            f"unique_id={_short(unique_id)}: use 1 to 200 letters, digits and _ + -, and dots between them"
        )
    return f"<{unique_id}@{sender.partition('@')[2]}>"


def _checked_recipients(to: str | Sequence[str]) -> list[str]:
    addresses = [to] if isinstance(to, str) else to
    if not addresses:
        raise ValueError("to=[]: nobody to send to; give at least one address")
    recipients = list(dict.fromkeys(_checked_address("to", address) for address in addresses))
    if len(recipients) > MAX_RECIPIENTS:
        raise ValueError(
            f"to has {len(recipients)} addresses; {MAX_RECIPIENTS} are allowed. "
            "Send one mail to each person, for example as a group of tasks"
        )
    return recipients


def _checked_address(field: str, address: str) -> str:
    """Return an address in the form in which it is sent: with a domain of ASCII."""
    local, at, domain = address.rpartition("@")
    if not local.isascii():
        raise ValueError(
            f"{field}={_short(address)}: the part before the @ is not ASCII. Servers take that only with "
            "SMTPUTF8, which is not used here; give an address in ASCII"
        )
    sent = local + at + (domain if domain.isascii() else _ascii_domain(field, address, domain))
    # `fullmatch`: a line break after a good address would start a header of the attacker's choice.
    if len(sent) > 254 or not ADDRESS.fullmatch(sent):
        raise ValueError(
            f"{field}={_short(address)}: not a mail address; give one address like ada@example.org, "
            "without a name and without line breaks"
        )
    if "=?" in local:
        raise ValueError(
            f"{field}={_short(address)}: =? begins an encoded word, so receivers would read another address; "
            "give an address without it"
        )
    return sent


def _ascii_domain(field: str, address: str, domain: str) -> str:
    """Return `bücher.example` as `xn--bcher-kva.example`."""
    for character in domain:
        if character not in "-." and unicodedata.category(character)[0] not in "LMN":
            raise ValueError(
                f"{field}={_short(address)}: {character!r} is no letter, mark or digit; correct the domain"
            )
    try:
        sent = domain.encode("idna")
        means = sent.decode("idna")
    except UnicodeError as error:
        raise ValueError(f"{field}={_short(address)}: not a domain name: {error}") from None
    # Python's codec follows the rules of 2003. Those of 2008 keep some letters apart that it makes one.
    if means != unicodedata.normalize("NFC", domain.lower()):
        raise ValueError(
            f"{field}={_short(address)}: the domain would become {means!r}, which may be somebody else's; "
            "give it in its ASCII form, which begins with xn--"
        )
    return sent.decode("ascii")


def _check_one_line(field: str, text: str) -> None:
    # Cc: control characters. Zl, Zp: Unicode's own line breaks. Cs: half a character.
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") for character in text):
        raise ValueError(
            f"{field}={_short(text)}: line breaks and control characters are not allowed; put it on one line"
        )


def _checked_text(field: str, text: str) -> str:
    """Return `text` as it will arrive: with `\\n` as line break, also after the last line."""
    try:
        lines = text.encode().splitlines()
    except UnicodeEncodeError as error:
        raise ValueError(f"{field} is not valid Unicode text: {error}; send whole characters") from None
    return "".join(f"{line.decode()}\n" for line in lines) or "\n"


def _read(attachments: Sequence[str]) -> list[_Attachment]:
    files: list[_Attachment] = []
    room = MAX_ATTACHMENT_BYTES
    for attachment in attachments:
        _check_one_line("attachments", attachment)
        path = inside(settings.data_dir, attachment, field="attachments")
        if not path.is_file():
            raise ValueError(f"attachments={attachment!r}: {_missing(path)}")
        try:
            with path.open("rb") as file:
                content = file.read(room + 1)
        except OSError as error:
            raise ValueError(f"attachments={attachment!r}: {error.strerror}; let workers read it") from error
        room -= len(content)
        if room < 0:
            raise ValueError(
                f"attachments={attachment!r}: more than {MAX_ATTACHMENT_BYTES:,} bytes in total; "
                "send a link instead"
            )
        name = Path(attachment).name
        files.append(_Attachment(name, *_content_type(name, content), content))
    return files


def _missing(path: Path) -> str:
    """Say why `path` is no file to send, and what lies beside it."""
    reason = "not a file" if path.exists() else "no such file"
    folder = path if path.is_dir() else path.parent
    there = sorted(file.name for file in folder.glob("*") if file.is_file())
    return f"{reason}; {folder} holds {', '.join(there[:20]) or 'no file'}"


# --- Headers and parts ----------------------------------------------------------------------------------


def _written(
    message_id: str,
    sender: str,
    recipients: list[str],
    subject_header: str,
    texts: dict[str, str],
    files: list[_Attachment],
) -> bytes:
    """Return the bytes of a mail. Whatever is written into a header here is sent like that."""
    message = EmailMessage(policy=AS_WRITTEN)
    message["Message-ID"] = message_id
    message["Date"] = format_datetime(localtime())
    message["From"] = sender
    message["To"] = ",\r\n ".join(recipients)
    message["Subject"] = subject_header
    _set_texts(message, texts)
    for file in files:
        _attach(message, file)
    return message.as_bytes()


def _subject_header(subject: str) -> str:
    if len(subject) > MAX_SUBJECT:
        raise ValueError(f"subject has {len(subject):,} characters; {MAX_SUBJECT:,} are allowed")
    _check_one_line("subject", subject)
    plain = subject.isascii() and len(subject) <= 60 and subject == subject.strip()
    if plain and "=?" not in subject:
        return subject
    # Encoded once, so whoever decodes it once has the subject again, also one that looks encoded.
    return Header(subject, "utf-8", maxlinelen=76, header_name="Subject").encode(linesep="\r\n")


def _set_texts(message: EmailMessage, texts: dict[str, str]) -> None:
    def encoding(text: str) -> str | None:  # None: the simplest one that can carry the text
        return "base64" if re.search(r"[\0-\x08\x0b-\x1f\x7f]", text) else None

    message.set_content(texts["body"], cte=encoding(texts["body"]))
    if "html" in texts:
        message.add_alternative(texts["html"], subtype="html", cte=encoding(texts["html"]))


def _attach(message: EmailMessage, file: _Attachment) -> None:
    maintype, subtype = file.content_type.split("/")
    parameters = {"charset": file.charset} if file.charset else {}
    message.add_attachment(file.content, maintype=maintype, subtype=subtype, params=parameters)
    *_, part = message.iter_parts()
    plain = re.fullmatch(r"[\w.+-]+", file.name, re.ASCII)
    # Any other name is percent-encoded (RFC 2231), so nothing in it means anything.
    part.set_param("filename", file.name, "Content-Disposition", charset=None if plain else "utf-8")


def _content_type(name: str, content: bytes) -> tuple[str, str | None]:
    """Return the content type of a file and, for a text, its charset."""
    kind, compressed = mimetypes.guess_type(name)
    kind = kind or ""
    # A mail in a mail (message/rfc822) may be changed on its way. As plain bytes it is not.
    if compressed or not kind.startswith(("application/", "audio/", "font/", "image/", "text/", "video/")):
        return "application/octet-stream", None
    if not kind.startswith("text/"):
        return kind, None
    try:
        content.decode()
    except UnicodeDecodeError:
        return "application/octet-stream", None  # a text in an encoding that nobody has told us
    return kind, "utf-8"


# --- The other way round --------------------------------------------------------------------------------


def _check_as_received(content: bytes, given: Mapping[str, object]) -> None:
    """Raise `ValueError` if the receiver of `content` would not find exactly what was `given`."""
    mail = message_from_bytes(content, EmailMessage, policy=policy.default)
    names = _header_names(mail)
    if names != HEADERS:
        raise ValueError(
            f"the mail would arrive with the headers {names}, so nothing was sent; change its texts"
        )
    received = _as_received(mail)
    for name, value in given.items():
        if received[name] != value:
            raise ValueError(
                f"{name}={_short(value)} would arrive as {_short(received[name])}, so nothing was sent; "
                "change it"
            )


def _header_names(mail: EmailMessage) -> list[str]:
    """Return the names of all headers but those that each part has once."""
    names: list[str] = []
    for part in mail.walk():
        own = part.keys()
        names += [name for at, name in enumerate(own) if name not in PART_HEADERS or name in own[:at]]
    return names


def _as_received(mail: EmailMessage) -> dict[str, object]:
    """Return what a mail program shows of a mail, by the names of our arguments."""
    return {
        "unique_id": str(mail["Message-ID"]),
        "MAIL_FROM": [str(address) for address in mail["From"].addresses],
        "to": [str(address) for address in mail["To"].addresses],
        "subject": str(mail["Subject"]),
        "body": _text_of(mail.get_body(("plain",))),
        "html": _text_of(mail.get_body(("html",))),
        "attachments": [
            _Attachment(
                _filename_of(part),
                part.get_content_type(),
                part.get_content_charset(),
                part.get_payload(decode=True),  # type: ignore[arg-type]  # bytes, but for a multipart
            )
            for part in mail.iter_attachments()
        ],
        "parts": sum(not part.is_multipart() for part in mail.walk()),
    }


def _filename_of(part: MIMEPart) -> str:
    header = part["Content-Disposition"]
    return str(header.params.get("filename", "")) if header else ""


def _text_of(part: MIMEPart | None) -> str | None:
    return None if part is None else str(part.get_content()).replace("\r\n", "\n")
