"""The claims of notebook 14: real mails and real images, on real workers."""

import os
import re
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from lab.evidence import log_lines, most_at_once
from lab.mail_server import Fault, fail_next, history, received
from lab.sandbox import Sandbox
from lab.timeline import Timeline
from lab.wrong_tasks import count_bytes
from lab.xray import xray
from services.image_files import MAX_PIXELS
from services.mail import PermanentMailError
from tasks.realworld_tasks import process_folder, process_image, send_email
from tests.waiting import wait_for, wait_until_idle

QUEUE = "realworld"
LETTER = ("ada@example.com", "Welcome", "Good to have you here.")
SMALLER: list[dict[str, Any]] = [{"type": "thumbnail", "size": 60}]
LARGER: list[dict[str, Any]] = [{"type": "resize", "width": 1800}, {"type": "filter", "name": "sharpen"}]


@pytest.fixture(autouse=True)
def images(data: Path) -> None:
    """Make the folder of the images."""
    (data / "images").mkdir()


# --- mail ---


def test_temporary_and_permanent_failures(
    sandbox: Sandbox, mailbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """14.1 `send_email` is retried when the mail server answers 4xx or not at all, and fails at the first try
    when it answers 5xx.
    """
    monkeypatch.setenv("SMTP_TIMEOUT_SECONDS", "2")  # how long a worker listens to a server that is silent
    sandbox.start_worker([QUEUE])
    passing: list[Fault] = ["450", "421", "hang"]
    fail_next(mailbox, *passing)
    send_email.delay(*LETTER).get(timeout=60)
    heard = history(mailbox)
    assert heard[:4] == [*passing, "kept"]

    fail_next(mailbox, "550")
    with pytest.raises(PermanentMailError, match="refused: 550"):
        send_email.delay(*LETTER).get(timeout=30)
    wait_until_idle(sandbox, QUEUE)
    assert history(mailbox) == [*heard, "550"]


def test_an_accepted_mail_whose_sender_does_not_know(
    sandbox: Sandbox, mailbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """14.2 A mail server may have accepted a mail although its sender never hears so: the next try then sends
    it a second time.
    """
    monkeypatch.setenv("SMTP_TIMEOUT_SECONDS", "2")
    sandbox.start_worker([QUEUE])
    fail_next(mailbox, "accept-hang")
    with Timeline() as timeline:
        first, *later = timeline.wait_for(send_email.delay(*LETTER), seconds=60)
    assert first.outcome == "retried"
    assert "does not answer" in first.detail
    assert later[-1].outcome == "succeeded"
    assert history(mailbox)[:3] == ["accept-hang", "kept", "kept already"]


def test_each_delivery_has_the_same_message_id(
    drill_sandbox: Sandbox, mailbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """14.3 The Message-ID follows from the task id, so a message that is delivered again sends its mail with
    the same Message-ID.
    """
    worker = drill_sandbox.start_worker([QUEUE])
    fail_next(mailbox, "accept-hang")
    sent = send_email.delay(*LETTER)
    wait_for("the server has the mail", lambda: received(mailbox))
    worker.kill()
    monkeypatch.setenv("SMTP_TIMEOUT_SECONDS", "1")  # four times that, and the dead worker's claim is void
    drill_sandbox.start_worker([QUEUE])
    sent.get(timeout=60)
    # Two copies came, and the server says that they have the same Message-ID.
    assert history(mailbox)[:3] == ["accept-hang", "kept", "kept already"]
    assert [mail["Message-ID"] for mail in received(mailbox)] == [f"<{sent.id}@localhost>"]


def test_the_ledger_stops_the_second_mail(sandbox: Sandbox, mailbox: Path) -> None:
    """14.4 A ledger of what was sent stops the second mail when a message is delivered again after the first
    mail was sent.
    """
    sent = send_email.delay(*LETTER)
    broker = sandbox.broker.client()
    message = broker.lindex(QUEUE, 0)
    assert message
    worker = sandbox.start_worker([QUEUE])
    assert sent.get(timeout=30)["already_sent"] is False
    wait_until_idle(sandbox, QUEUE)
    broker.lpush(QUEUE, message)  # the same message once more, byte by byte
    ended = [line for line in log_lines(worker, sent.id, times=2) if "succeeded" in line]
    assert ["'already_sent': True" in line for line in ended] == [False, True]
    assert history(mailbox) == ["kept"]


def test_two_calls_and_a_task_id_of_your_own(sandbox: Sandbox, mailbox: Path) -> None:
    """14.5 Two calls of `delay()` send two mails, and two calls with the same `task_id` send one."""
    worker = sandbox.start_worker([QUEUE])
    for _ in range(2):
        send_email.delay(*LETTER).get(timeout=30)
    assert len(received(mailbox)) == 2
    for times in (1, 2):
        send_email.apply_async(args=LETTER, task_id="receipt-1001")
        log_lines(worker, "receipt-1001", times=times)
    assert len(received(mailbox)) == 3
    assert history(mailbox) == ["kept", "kept", "kept"]


# --- images ---


def noise(width: int, height: int) -> Image.Image:
    """Return a picture that is hard to compress, so that writing it as PNG takes its time."""
    grain = Image.effect_noise((width, height), 100)
    return Image.merge("RGB", [grain, grain.transpose(Image.Transpose.ROTATE_180), grain])


@pytest.mark.parametrize("size", [9_000, 400_000])
def test_a_picture_in_a_message(sandbox: Sandbox, size: int) -> None:
    """14.6 On Redis, bytes in the arguments of a task are base64 twice: their message is more than 1.7 times
    as large as they are.
    """
    picture = os.urandom(size)
    result = count_bytes.delay(picture)
    [message] = xray("basic").messages
    assert 16 / 9 * size < message.size < 16 / 9 * size + 5_000  # and some headers
    sandbox.start_worker(["basic"], include=["lab.wrong_tasks"])
    assert result.get(timeout=20) == size


@pytest.mark.parametrize(
    ("path", "reason"), [("../private.jpg", "'..' is not allowed"), ("link.jpg", "leads outside")]
)
def test_a_path_that_leads_out(sandbox: Sandbox, data: Path, path: str, reason: str) -> None:
    """14.7 A path that leads out of the data folder, by `..` or through a link, is refused before the file is
    opened.
    """
    (data.parent / "private.jpg").write_text("not an image")  # whoever opens it, says so
    (data / "link.jpg").symlink_to(data.parent / "private.jpg")
    shutil.copy(data.parent / "private.jpg", data / "public.jpg")
    sandbox.start_worker([QUEUE])
    with pytest.raises(ValueError, match=re.escape(f"image_path='{path}': {reason}")):
        process_image.delay(path, SMALLER).get(timeout=20)
    with pytest.raises(ValueError, match="not an image"):
        process_image.delay("public.jpg", SMALLER).get(timeout=20)
    assert not (data / "out").exists()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_decompression_bomb(sandbox: Sandbox, data: Path) -> None:
    """14.8 An image with too many pixels is refused by its header, before its pixels are unpacked."""
    side = 9_000
    assert side * side > MAX_PIXELS
    for name, sides in [("bomb.png", (side, side)), ("small.png", (10, 10))]:
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *sides, 8, 2, 0, 0, 0))
        broken = png_chunk(b"IDAT", b"no pixels at all")  # an error as soon as somebody unpacks it
        (data / name).write_bytes(b"\x89PNG\r\n\x1a\n" + header + broken + png_chunk(b"IEND", b""))
    sandbox.start_worker([QUEUE])
    with pytest.raises(ValueError, match=f"{side} x {side} pixels"):
        process_image.delay("bomb.png", SMALLER).get(timeout=20)
    with pytest.raises(ValueError, match="broken"):
        process_image.delay("small.png", SMALLER).get(timeout=20)


def test_a_photo_that_was_taken_sideways(sandbox: Sandbox, data: Path) -> None:
    """14.9 A photo that was taken sideways is stored sideways with a note, and Pillow does not turn it: a
    task that writes a new image must do it.
    """
    note = Image.Exif()
    note[ExifTags.Base.Orientation] = 6  # turn it by a quarter, clockwise
    Image.new("RGB", (80, 120)).save(data / "photo.jpg", exif=note)
    with Image.open(data / "photo.jpg") as photo:
        assert photo.size == (80, 120)  # Pillow shows it as it is stored …
        photo.save(data / "naive.jpg")
    with Image.open(data / "naive.jpg") as naive:
        assert (naive.size, dict(naive.getexif())) == ((80, 120), {})  # … and forgets the note
    sandbox.start_worker([QUEUE])
    processed = process_image.delay("photo.jpg", SMALLER).get(timeout=20)
    assert (processed["width"], processed["height"]) == (60, 40)


@pytest.mark.parametrize("children", [1, 3])
def test_a_group_is_spread_over_the_children(sandbox: Sandbox, data: Path, children: int) -> None:
    """14.10 A group of images is spread over all pool children, and each child works on one image at a
    time.
    """
    for number in range(6):
        Image.new("RGB", (600, 400), (30 * number, 90, 30)).save(data / f"images/photo{number}.jpg")
    sandbox.start_worker([QUEUE], concurrency=children)
    with Timeline() as timeline:
        result = process_folder("images", LARGER).delay()
        runs = timeline.wait_for(result, seconds=60)
    assert most_at_once(runs) == children


def test_a_worker_that_is_killed_while_it_writes(sandbox: Sandbox, data: Path) -> None:
    """14.11 A file that is written under another name, and renamed when it is complete, is never seen half,
    even if its worker is killed.
    """
    picture = noise(4000, 3000)
    picture.save(data / "photo.jpg")
    worker = sandbox.start_worker([QUEUE])
    process_image.delay("photo.jpg", [{"type": "format", "format": "PNG"}])
    folder = data / "out/images"

    def begun() -> list[Path]:
        return [path for path in folder.glob(".*.part") if path.stat().st_size]

    wait_for("a part of the image is on the disk", begun, seconds=30)
    worker.kill()
    [left] = folder.iterdir()
    assert left.name.startswith(".")
    with pytest.raises((OSError, SyntaxError)), Image.open(left, formats=["PNG"]) as image:
        image.load()


def test_a_broken_image_in_a_group(sandbox: Sandbox, data: Path) -> None:
    """14.12 A broken image costs only its own result: `get(propagate=False)` of the group gives the results
    of the others, and the error in its place.
    """
    for number in range(4):
        noise(120, 80).save(data / f"images/photo{number}.jpg")
    broken = data / "images/photo2.jpg"
    broken.write_bytes(broken.read_bytes()[:-500])
    sandbox.start_worker([QUEUE])
    values = process_folder("images", SMALLER).delay().get(timeout=30, propagate=False)
    assert [type(value) for value in values] == [dict, dict, ValueError, dict]
    assert "image_path='images/photo2.jpg'" in str(values[2])
    written = {path.name.partition("-")[0] for path in (data / "out/images").iterdir()}
    assert written == {"photo0", "photo1", "photo3"}
