"""What is in the bytes of a mail: read by hand, as RFC 5322, 2047 and 2231 say it, and by Python."""

import base64
import gzip
import os
import quopri
import random
import re
import unicodedata
from collections.abc import Callable
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from services import mail_message
from services.mail_message import Mail, compose
from settings import settings

pytestmark = pytest.mark.usefixtures("shop")

HEADERS = ["Message-ID", "Date", "From", "To", "Subject"]
EVIL = "=?utf-8?q?a=0AX-Evil:_1?="  # a line break and a header, once it is decoded


@pytest.fixture(autouse=True)
def sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "mail_from", "learn-celery@localhost")


def composed(**changes: Any) -> Mail:
    arguments = {"unique_id": "task-1", "to": "ada@example.org", "subject": "Hello", "body": "Good day.\n"}
    return compose(**(arguments | changes))


def read(mail: Mail) -> EmailMessage:
    return message_from_bytes(mail.content, EmailMessage, policy=policy.default)


def header_lines(mail: Mail) -> list[tuple[str, str]]:
    """Return the names and values of the headers, by hand: folded lines are put together, nothing decoded."""
    head, _, _ = mail.content.decode("ascii").partition("\r\n\r\n")
    fields = re.split(r"\r\n(?![ \t])", head)
    return [(name, value.strip(" ")) for name, _, value in (field.partition(":") for field in fields)]


def own_headers(mail: Mail) -> list[str]:
    return [name for name, _ in header_lines(mail) if not name.startswith(("Content-", "MIME-"))]


def subject_by_hand(mail: Mail) -> str:
    """Decode the subject as RFC 2047 says it: space between two encoded words is none."""
    value = dict(header_lines(mail))["Subject"]
    if "=?" not in value:
        return value
    decoded = b""
    for word in value.split("\r\n "):
        match = re.fullmatch(r"=\?utf-8\?([bq])\?([!->@-~]+)\?=", word)
        assert match, word
        assert len(word) <= 75  # RFC 2047
        kind, text = match.groups()
        decoded += base64.b64decode(text) if kind == "b" else quopri.decodestring(text.replace("_", " "))
    return decoded.decode()


def subject_by_old_parser(mail: Mail) -> str:
    return str(make_header(decode_header(message_from_bytes(mail.content)["Subject"])))


def subjects(mail: Mail) -> list[str]:
    """Return the subject as three readers decode it."""
    return [subject_by_hand(mail), subject_by_old_parser(mail), str(read(mail)["Subject"])]


# --- subject ---


@pytest.mark.parametrize(
    "subject",
    [
        f"{EVIL} b",
        "=?utf-8?q?a=0D=0A=0D=0A<h1>the_headers_have_ended</h1>?= b",
        f"{EVIL} {EVIL}",
        f"before {EVIL} after",
        "=?utf-8?b?YQpYLUV2aWw6IDE=?=",
        "=?us-ascii?q?a=0D=0AX-Evil=3A_1?=",
        "=?latin-1?q?=FC?= =?nonsense?q?=FC?= =?utf-8?q?=?=",
        "=?utf-8?q?=3D=3Futf-8=3Fq=3Fa=3D0AX-Evil=3A=5F1=3F=3D?=",
        "=?",
        "ü =?utf-8?q?a=0AX-Evil:_1?=",
        " leading and trailing ",
        "two  blanks",
        "",
        " ",
    ],
)
def test_a_subject_arrives_as_it_was_typed_also_one_that_looks_encoded(subject: str):
    mail = composed(subject=subject)
    assert own_headers(mail) == HEADERS
    assert subjects(mail) == [subject] * 3
    assert read(mail).get_content() == "Good day.\r\n"


def random_subject(random: random.Random) -> str:
    words = [
        "订单 №1 🎉",
        "äöü ß",
        "नमस्ते दुनिया ",
        "e\u0301 👨‍👩‍👧",
        "\u00a0\u3000 ",
        EVIL,
        "=?_ =?=",
        ' ~!"#:;<,.>',
    ]
    anything = "".join(chr(random.randrange(0x20, 0x110000)) for _ in range(20))
    letters = "".join(random.choice([*words, anything]) for _ in range(random.randint(1, 60)))
    begin = random.randrange(len(letters))
    kept = letters[begin : begin + random.choice([5, 50, 500])]
    return "".join(letter for letter in kept if unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp"))


def test_many_random_subjects_arrive_exactly_as_they_were_given():
    numbers = random.Random(20261126)
    for subject in {random_subject(numbers) for _ in range(500)}:
        mail = composed(subject=subject)
        assert own_headers(mail) == HEADERS
        assert subjects(mail) == [subject] * 3
        assert max(map(len, mail.content.splitlines())) <= 78


@pytest.mark.parametrize(
    "subject", ["Hi\nBcc: eve@example.org", "Hi\r\n\r\nbody", "a\0b", "a\x85b", "a\tb", "a\u2028b", "\ud800"]
)
def test_a_subject_with_a_line_break_is_refused(subject: str):
    with pytest.raises(ValueError, match="put it on one line") as refused:
        composed(subject=subject)
    assert str(refused.value).startswith(f"subject={subject!r}: ")


# --- addresses ---

BAD_ADDRESSES = [
    "",
    "ada",
    "ada@",
    "@example.org",
    "ada@example..org",
    ".ada@example.org",
    "a..da@example.org",
    "ada lovelace@example.org",
    '"ada"@example.org',
    "Ada <ada@example.org>",
    f"{EVIL} <ada@example.org>",
    "ada@example.org (Ada)",
    "ada@example.org, bob@example.org",
    "ada@example.org\nBcc: everyone@example.org",
    "ada@example.org\n",
    "ada@example.org\r\nRCPT TO:<eve@example.org>",
    "ada@[127.0.0.1]",
    "a" * 65 + "@example.org",
    "ada@" + ".".join(["x" * 60] * 5),
]


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_a_bad_address_is_refused(address: str):
    with pytest.raises(ValueError, match="not a mail address; give one address like") as refused:
        composed(to=["bob@example.org", address])
    assert str(refused.value).startswith(f"to={address!r:.200}")


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_a_bad_sender_is_refused_by_the_name_of_its_setting(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settings, "mail_from", address)
    with pytest.raises(ValueError, match=r"^MAIL_FROM=.*not a mail address"):
        composed()


@pytest.mark.parametrize(
    "address", ["=?utf-8?q?eve=40example.com=2C?=@example.org", "=?utf-8?q?a=0AX-Evil=3A_1?=@example.org"]
)
def test_an_address_that_reads_as_another_one_is_refused(address: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"^to=.*=\? begins an encoded word"):
        composed(to=address)
    monkeypatch.setattr(settings, "mail_from", address)
    with pytest.raises(ValueError, match=r"^MAIL_FROM=.*=\? begins an encoded word"):
        composed()


@pytest.mark.parametrize("address", ["a@b", "!#$%&'*+/?=^_`{|}~-@example.org", "a.b+c@x-1.example.org"])
def test_unusual_addresses_arrive_exactly(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settings, "mail_from", address)
    mail = composed(to=["bob@example.org", address])
    headers = dict(header_lines(mail))
    assert headers["From"] == mail.sender == address
    assert headers["To"].split(",\r\n ") == mail.recipients == ["bob@example.org", address]


@pytest.mark.parametrize(
    ("domain", "sent"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),  # the same letter, typed as two
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_a_domain_of_another_alphabet_is_sent_in_its_ascii_form(
    domain: str, sent: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(settings, "mail_from", f"shop@{domain}")
    mail = composed(to=f"ada@{domain}")
    assert (mail.recipients, mail.sender, mail.message_id) == (
        [f"ada@{sent}"],
        f"shop@{sent}",
        f"<task-1@{sent}>",
    )
    assert str(read(mail)["To"]) == f"ada@{sent}"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("ada@straße.example", "the domain would become 'strasse.example', which may be somebody else's"),
        ("ada@example\u3002org", "is no letter"),
        ("ada@\uff45xample.org", "the domain would become 'example.org'"),
        ("ada@bü..example", "label empty or too long"),
        ("ada@" + "ü" * 70 + ".example", "not a domain name"),
        ("ada@bü cher.example", "' ' is no letter, mark or digit; correct the domain"),
        ("ada@example.com\u2019", "'\u2019' is no letter"),
        ("ada@\U0001f389.example", "is no letter"),
        ("ada@a\u200db.example", "'\\u200d' is no letter"),
        ("ada@x.example\nBcc: eve@bücher.example", "not a mail address"),
        ("müller@example.org", "the part before the @ is not ASCII. Servers take that only with SMTPUTF8"),
        ("\uff41da@example.org", "the part before the @ is not ASCII"),
    ],
)
def test_an_international_address_that_cannot_be_sent_is_refused_with_the_reason(address: str, text: str):
    with pytest.raises(ValueError, match=re.escape(text)) as refused:
        composed(to=address)
    assert str(refused.value).startswith("to='")


def test_many_addresses_arrive_and_one_domain_in_two_forms_is_one_address():
    people = [f"{'x' * 40}{number}@example.org" for number in range(49)]
    mail = composed(to=[*people, "ada@bücher.example", "ada@xn--bcher-kva.example"])
    assert mail.recipients == [*people, "ada@xn--bcher-kva.example"]
    assert [str(address) for address in read(mail)["To"].addresses] == mail.recipients


# --- texts ---


@pytest.mark.parametrize(
    "body",
    [
        "你好 世界\n.\n..two dots\n" + "x" * 5000 + "\n",
        "trailing blanks  \n\ttabs\t\nFrom here on\n",
        "no line break at the end",
        "\0 \x08 \x0b \x0c \x1a \x1c \x7f \x85 \u2028 are no line breaks\n",
        "\n\n\n",
        "",
        "=?utf-8?q?a?= =3D\n",
        "--===============0123456789==--\n",
        "\U0001d4b0 e\u0301 \u200d\n" * 500,
    ],
)
def test_a_text_arrives_unchanged_plain_and_as_html(body: str):
    plain, html = read(composed(body=body, html=body)).iter_parts()
    expected = body if body.endswith("\n") else f"{body}\n"
    for part in (plain, html):
        assert part.get_content().replace("\r\n", "\n") == expected


def test_each_of_the_three_line_ends_arrives_as_one_line_end():
    assert read(composed(body="a\rb\nc\r\nd")).get_content() == "a\r\nb\r\nc\r\nd\r\n"


# --- attachments ---

CONTENTS = {
    "table.csv": ("text/csv", "a;b\r\nä;ö\n\n".encode()),
    "windows.csv": ("application/octet-stream", "a;b\r\nä;ö\n".encode("cp1252")),
    "page.html": ("text/html", b"<p>one</p>\r<p>two</p>"),
    "letter.eml": ("application/octet-stream", b"Subject: \xfc\nBcc: x\n\n\n.\nFrom me\n"),
    "page.mhtml": ("application/octet-stream", b"MIME-Version: 1.0\n\nx"),
    "data.json": ("application/json", b"{}"),
    "data.csv.gz": ("application/octet-stream", gzip.compress(b"a;b\n" * 99)),
    "archive.tgz": ("application/octet-stream", b"\x1f\x8b\r\n.\r\n"),
    "chart.png": ("image/png", b"\x89PNG\r\n\x1a\n\n.\n"),
    "report.pdf": ("application/pdf", b"%PDF\r" + bytes(range(256))),
    "text.txt": ("text/plain", b""),
    "utf16.txt": ("application/octet-stream", "ü".encode("utf-16")),
    "bom.txt": ("text/plain", "\ufeffü".encode()),
    "README": ("application/octet-stream", b"no suffix\n"),
    "strange.zzz": ("application/octet-stream", os.urandom(1000)),
}


def attached(mail: Mail) -> list[tuple[str, str, Any]]:
    return [
        (
            part["Content-Disposition"].params["filename"],
            part.get_content_type(),
            part.get_payload(decode=True),
        )
        for part in read(mail).iter_attachments()
    ]


def test_attachments_of_every_type_arrive_byte_by_byte(shop: Path):
    for name, (_, content) in CONTENTS.items():
        (shop / name).write_bytes(content)
    mail = composed(attachments=list(CONTENTS))
    assert attached(mail) == [(name, kind, content) for name, (kind, content) in CONTENTS.items()]
    for part, (_, content) in zip(read(mail).iter_attachments(), CONTENTS.values(), strict=True):
        shown = part.get_content()  # what a mail program shows; a text is decoded as its part says
        assert shown == (content.decode() if part.get_content_maintype() == "text" else content)


NAMES = [
    "报告 2026.pdf",
    "été.pdf",
    "e\u0301.pdf",
    "🎉.pdf",
    "my report.pdf",
    f"{EVIL}.pdf".replace("/", "_"),
    "=?utf-8?b?YQpYLUV2aWw6IDE=?=",
    'a"; filename="b.exe',
    "a\\b.pdf",
    "a%0D%0Ab.pdf",
    "utf-8''a.pdf",
    "'",
    " ",
    ".hidden",
    "ü" * 127,
    "a; x=y.pdf",
    "data:text,x",
]


def filename_by_hand(mail: Mail) -> str:
    """Return the name of the only attachment as RFC 2231 says it."""
    [value] = re.findall(r"\r\nContent-Disposition: attachment; (.*)\r\n", mail.content.decode("ascii"))
    if plain := re.fullmatch(r'filename="?([\w.+-]+)"?', value, re.ASCII):
        return plain[1]
    encoded = re.fullmatch(r"filename\*=utf-8''([A-Za-z0-9._~%-]+)", value)
    assert encoded, value
    return unquote_to_bytes(encoded[1]).decode()


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_an_attachment_arrives_exactly(shop: Path, name: str):
    (shop / name).write_bytes(b"x")
    mail = composed(attachments=[name])
    assert own_headers(mail) == HEADERS
    assert [got for got, _, _ in attached(mail)] == [name] == [filename_by_hand(mail)]


@pytest.mark.parametrize(
    "name", ["a\nb.txt", "a\r\nX-Evil: 1.txt", "a\0.txt", "a\u2028b", "a\x85b", "\udcff"]
)
def test_a_line_break_in_the_name_of_an_attachment_is_refused(shop: Path, name: str):
    if "\0" not in name:
        (shop / name).write_bytes(b"x")
    with pytest.raises(ValueError, match="put it on one line") as refused:
        composed(attachments=[name])
    assert str(refused.value).startswith(f"attachments={name!r}: ")


def test_an_attachment_has_the_name_that_was_asked_for_and_not_that_of_a_link_s_target(shop: Path):
    (shop / "2026-05.pdf").write_bytes(b"x")
    (shop / "latest.pdf").symlink_to("2026-05.pdf")
    assert [name for name, _, _ in attached(composed(attachments=["latest.pdf"]))] == ["latest.pdf"]


def test_attachments_together_must_not_be_too_large(shop: Path):
    for name, size in {"half.bin": 5_000_000, "rest.bin": 5_000_001}.items():
        with (shop / name).open("wb") as file:
            file.truncate(size)
    assert len(attached(composed(attachments=["half.bin"]))) == 1
    with pytest.raises(ValueError, match=r"attachments='rest\.bin': more than 10,000,000 bytes in total"):
        composed(attachments=["half.bin", "rest.bin"])


def test_a_file_that_is_not_there_is_refused_with_those_that_are(shop: Path):
    for name in ("b.pdf", "a.pdf"):
        (shop / name).touch()
    with pytest.raises(ValueError, match=r"attachments='c\.pdf': no such file; .* holds a\.pdf, b\.pdf$"):
        composed(attachments=["c.pdf"])


def test_a_pipe_is_not_read(shop: Path):
    os.mkfifo(shop / "pipe")
    with pytest.raises(ValueError, match="attachments='pipe': not a file"):
        composed(attachments=["pipe"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"to": []}, r"to=\[\]: nobody to send to"),
        ({"to": [f"user{n}@example.org" for n in range(3000)]}, "to has 3000 addresses; 50 are allowed"),
        ({"unique_id": "a>\nb"}, r"unique_id='a>\\nb': use 1 to 200 letters"),
        ({"unique_id": ""}, "unique_id='': use"),
        ({"unique_id": "a..b"}, r"unique_id='a\.\.b': use"),
        ({"unique_id": "=?utf-8?q?a=0AX?="}, r"unique_id='=\?utf-8"),
        ({"unique_id": "x" * 201}, "unique_id='xxx"),
        ({"subject": "x" * 10_001}, "subject has 10,001 characters; 10,000 are allowed"),
        ({"body": "\ud800"}, "body is not valid Unicode"),
        ({"html": "\ud800"}, "html is not valid Unicode"),
        ({"attachments": ["../secret"]}, r"attachments='\.\./secret': '\.\.' is not allowed"),
        ({"attachments": ["."]}, r"attachments='\.': not a file"),
    ],
)
def test_bad_arguments_are_refused_by_name(changes: dict[str, Any], text: str):
    with pytest.raises(ValueError, match=f"^{text}"):
        composed(**changes)


# --- the bytes ---


def test_the_bytes_are_what_every_server_takes(shop: Path):
    (shop / "报告.csv").write_text("ü\r\n" * 50)
    mail = composed(subject="ü" * 900, body="ü\r" + "x" * 2000, html="\n\0", attachments=["报告.csv"])
    assert mail.content.isascii()
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", mail.content)  # no line break of another kind
    assert not re.search(rb"[\0-\x09\x0b\x0c\x0e-\x1f\x7f]", mail.content)  # no other control character
    assert max(map(len, mail.content.split(b"\r\n"))) <= 998


def changed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert content.count(old) == 1
        return content.replace(old, new)

    return change


def one_more_part(content: bytes) -> bytes:
    """Put a third text beside the two that say the same."""
    begin = rb"(\r\n--[^\r]*\r\n)(Content-Type: text/html)"
    content, count = re.subn(begin, rb"\1Content-Type: text/x\r\n\r\nevil\1\2", content)
    assert count == 1
    return content


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (changed(b"Subject:", b"X-Evil: 1\r\nSubject:"), r"with the headers .*'X-Evil'"),
        (changed(b"Subject:", b"Subject: 1\r\nSubject:"), r"'To', 'Subject', 'Subject'"),
        (changed(b"\r\nTo: ", b"\r\nBcc: eve@example.org\r\nTo: "), r"with the headers .*'Bcc'"),
        (changed(b"\r\nSubject: Hello", b""), r"with the headers .*'To'\]"),
        (changed(b"\r\nContent-Type: text/html", b"\r\nX-Evil: 1\r\nContent-Type: text/html"), "'X-Evil'"),
        (
            changed(b"Content-Type: text/html", b"content-type: x\r\nContent-Type: text/html"),
            "'content-type'",
        ),
        (
            changed(b"Content-Type: text/html", b"Content-Type: x\r\nContent-Type: text/html"),
            "'Content-Type'",
        ),
        (changed(b"Subject: Hello", b"Subject: =?utf-8?q?H=0A?="), "subject='Hello' would arrive as 'H"),
        (changed(b"\r\nTo: ", b"\r\nTo: eve@example.org, "), r"to=\['ada.* would arrive as \['eve@"),
        (changed(b"\r\nFrom: ", b"\r\nFrom: eve@example.org, "), r"MAIL_FROM=.* would arrive as \['eve@"),
        (changed(b"\r\nFrom: learn-celery@localhost", b"\r\nFrom: Eve <learn-celery@localhost>"), "'Eve <"),
        (changed(b"<task-1@", b"<task-2@"), "unique_id='<task-1@localhost>' would arrive as '<task-2@"),
        (changed(b"\r\nGood day", b"\r\nGood night"), r"body='Good day\..*would arrive as 'Good night"),
        (changed(b"<p>", b"<b>"), "html='<p>.* would arrive as '<b>"),
        (changed(b'filename="a.txt"', b"filename*=utf-8''a.exe"), "attachments=.*would arrive as.*a.exe"),
        (changed(b"attachment; filename", b"attachment; name"), "attachments=.*would arrive as.*''"),
        (changed(b'/plain; charset="utf-8"\r\nMIME', b"/plain\r\nMIME"), "attachments="),
        (changed(b"WFhY", b"WVlZ"), "attachments="),
        (one_more_part, "parts=3 would arrive as 4"),
    ],
)
def test_a_mail_that_would_arrive_otherwise_than_given_is_refused(
    shop: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes], text: str
):
    (shop / "a.txt").write_text("XXX")
    letter: dict[str, Any] = {"html": "<p>Good day.</p>", "attachments": ["a.txt"]}
    as_bytes = EmailMessage.as_bytes
    monkeypatch.setattr(EmailMessage, "as_bytes", lambda self: change(as_bytes(self)))
    with pytest.raises(ValueError, match=text):
        composed(**letter)


def test_an_injection_that_gets_past_the_other_checks_is_found_in_the_bytes(monkeypatch: pytest.MonkeyPatch):
    # Python's own policy decodes what it is given, as it did to us once.
    monkeypatch.setattr(mail_message, "AS_WRITTEN", policy.SMTP.clone(cte_type="7bit"))
    monkeypatch.setattr(mail_message, "_subject_header", lambda subject: subject)
    for subject in (f"{EVIL} b", "=?utf-8?q?a=0D=0A=0D=0Athe_end?= b"):
        with pytest.raises(ValueError, match="so nothing was sent"):
            composed(subject=subject)
