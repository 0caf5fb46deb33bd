"""Real-world usage: mail, images, tables, a report, old files; and pipelines of them.

Brings its own broker, worker and mail server up if none are there, and takes them down again.
"""

import secrets
import time
from pathlib import Path
from typing import Any, cast

from celery.result import GroupResult

from lab.mail_server import received
from lab.progress import follow
from lab.story import Story
from services.images import list_images
from settings import settings
from tasks.realworld_tasks import (
    cleanup_files,
    contact_sheet_by_mail,
    export_data,
    generate_report,
    import_data,
    process_folder,
    process_image,
    sales_report_by_mail,
    send_email,
)

story = Story(__doc__, queues=["realworld"])

WEB_SIZE: list[dict[str, Any]] = [
    {"type": "thumbnail", "size": 320},
    {"type": "filter", "name": "sharpen"},
    {"type": "watermark", "text": "learn celery"},
]


# Addresses of this run, so that mails of an earlier one are not taken for ours.
RUN = secrets.token_hex(3)
ADA, BOSS, ON_CALL, PHOTOS = (f"{name}+{RUN}@example.com" for name in ("ada", "boss", "on-call", "photos"))


def wait_for_mail(to: str, seconds: float = 30) -> list[str]:
    """Wait until the sandbox's mail server has a mail to this address. Return the subjects of all."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if subjects := [mail["Subject"] for mail in received(settings.sandbox_folder) if mail["To"] == to]:
            return subjects
        time.sleep(0.05)
    return []


@story.step("Send a mail, and read it back", expect=["Welcome"])
def mail() -> list[str]:
    """The sandbox has a mail server of its own. It speaks real SMTP, and keeps what it receives."""
    send_email.delay(ADA, "Welcome", "Good to have you here.").get(timeout=30)
    return wait_for_mail(to=ADA)


@story.step("A wrong address fails at once", expect=lambda line: line.startswith("FAILURE"))
def wrong_address() -> str:
    """A server that is busy is asked again, with backoff. An unknown mailbox stays unknown: no retry."""
    result = send_email.delay("nobody@example.com", "Hello", "Anybody there?")
    error = result.get(timeout=30, propagate=False)
    return f"{result.state}: {error}"


@story.step("Process an image", expect=lambda image: image["width"] <= 320 and image["bytes"] > 0)
def image() -> dict[str, object]:
    """Three operations on one photo. Paths are relative to the data folder, and may not leave it."""
    return process_image.delay("images/photo1.jpg", WEB_SIZE).get(timeout=30)


@story.step(
    "Process a folder, all cores at once", expect=lambda paths: all(Path(path).is_file() for path in paths)
)
def folder() -> list[str]:
    """A group with one task for each image. Each task reports its progress: the bars below."""
    running = cast(GroupResult, process_folder("images", WEB_SIZE).delay())
    done = follow(dict(zip(list_images("images"), running.results or [], strict=True)), timeout=60)
    return [str(settings.data_dir / image["path"]) for image in done]


@story.step(
    "Import a table with bad rows", expect=lambda value: (value["imported"], value["rejected"]) == (483, 17)
)
def table() -> dict[str, object]:
    """Good rows go into the database. Each bad row goes into a rejects file, with line, column and reason."""
    return import_data.delay("orders.csv").get(timeout=60)


@story.step(
    "Import it again, in three parts",
    expect=lambda value: (value["imported"], value["rejected"]) == (483, 17),
)
def table_in_parts() -> dict[str, object]:
    """The task replaces itself by a chord: three ranges of bytes at once, then one rejects file.
    The rows are there already. Importing them again changes nothing."""
    return import_data.delay("orders.csv", parts=3).get(timeout=60)


@story.step("Export it", expect=lambda values: [value["rows"] for value in values] == [483] * 3)
def export() -> list[dict[str, object]]:
    """CSV for any program, JSON Lines for programs of ours, Excel for people."""
    running = {name: export_data.delay(name) for name in ("csv", "jsonl", "xlsx")}
    return follow(running, timeout=60)


@story.step("Write a report", expect=lambda paths: all(Path(path).is_file() for path in paths))
def report() -> list[str]:
    """A page with charts that opens in any browser, and the same as PDF."""
    written = generate_report.delay("2026").get(timeout=60)
    return [str(settings.data_dir / written[kind]) for kind in ("html", "pdf")]


@story.step("Pipeline: import, report, mail", expect=["Sales 2026-05"])
def pipeline() -> list[str]:
    """A chain of three tasks. The last one mails the report that the second wrote."""
    sales_report_by_mail("orders.csv", "2026-05", BOSS).delay().get(timeout=60)
    return wait_for_mail(to=BOSS)


@story.step("The same pipeline with a mistake", expect=["A pipeline failed"])
def failing_pipeline() -> list[str]:
    """There is no such period. The error callback, a task of its own, mails that the pipeline failed."""
    sales_report_by_mail("orders.csv", "2026-13", ON_CALL).delay()
    return wait_for_mail(to=ON_CALL)


@story.step("Chord: process a folder, mail one sheet of all", expect=["Contact sheet"])
def contact_sheet() -> list[str]:
    """The header is the group of all images. The body puts them on one sheet, and mails it."""
    contact_sheet_by_mail("images", WEB_SIZE, PHOTOS).delay().get(timeout=60)
    return wait_for_mail(to=PHOTOS)


@story.step(
    "Clean up old files: first only look", expect=lambda value: value["dry_run"] and value["kept"] > 0
)
def cleanup() -> dict[str, object]:
    """Files older than 30 days in the output folder. By default nothing is removed, only reported."""
    return cleanup_files.delay(".", older_than_days=30).get(timeout=30)


if __name__ == "__main__":
    story.main()
