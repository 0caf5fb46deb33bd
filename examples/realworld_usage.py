"""Real-world usage: mail, images, tables, a report, old files; and pipelines of them.

Brings its own broker, worker and mail server up if none are there, and takes them down again.
"""

import secrets
from pathlib import Path
from typing import Any, cast

from celery.result import GroupResult
from sqlalchemy import func, select

from lab.mail_server import received
from lab.progress import follow
from lab.story import Story
from lab.waiting import wait_for
from services.database import reading
from services.images import list_images
from services.models import Order
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


def mails(to: str) -> list[str]:
    """Return the subjects of the mails to this address that the sandbox's mail server has, oldest first."""
    return [mail["Subject"] for mail in received(settings.sandbox_folder) if mail["To"] == to]


def wait_for_new_mail(to: str, before: list[str]) -> list[str]:
    """Wait until there are more mails to this address than `before`. Return the subjects of the new ones."""
    return wait_for(f"a mail to {to}", lambda: mails(to)[len(before) :], seconds=30)


def count_orders() -> int:
    """Return how many orders are in the database."""
    with reading() as session:
        return session.scalar(select(func.count()).select_from(Order)) or 0


@story.step(expect=["Welcome"])
def mail() -> list[str]:
    """Send a mail, and read it back.

    The sandbox has a mail server of its own. It speaks real SMTP, and keeps what it receives.
    """
    before = mails(ADA)
    send_email.delay(ADA, "Welcome", "Good to have you here.").get(timeout=30)
    return wait_for_new_mail(ADA, before)


@story.step(expect=lambda value: value.startswith("FAILURE"))
def wrong_address() -> str:
    """A wrong address fails at once.

    A server that is busy is asked again, with backoff. An unknown mailbox stays unknown: no retry.
    """
    result = send_email.delay("nobody@example.com", "Hello", "Anybody there?")
    error = result.get(timeout=30, propagate=False)
    return f"{result.state}: {error}"


@story.step(expect=lambda value: value["width"] <= 320 and value["bytes"] > 0)
def image() -> dict[str, object]:
    """Process an image.

    Three operations on one photo. Paths are relative to the data folder, and may not leave it.
    """
    return process_image.delay("images/photo1.jpg", WEB_SIZE).get(timeout=30)


@story.step(expect=lambda value: all(Path(path).is_file() for path in value))
def folder() -> list[str]:
    """Process a folder, its images at the same time.

    A group with one task for each image. Each task reports its progress: a terminal shows it as a bar.
    """
    running = cast(GroupResult, process_folder("images", WEB_SIZE).delay())
    done = follow(dict(zip(list_images("images"), running.results or [], strict=True)), timeout=60)
    return [str(settings.data_dir / image["path"]) for image in done]


@story.step(expect=lambda value: (value["imported"], value["rejected"]) == (483, 17))
def table() -> dict[str, object]:
    """Import a table with bad rows.

    Good rows go into the database. Each bad row goes into a rejects file, with line, column and reason.
    """
    return import_data.delay("orders.csv").get(timeout=60)


@story.step(expect={"imported": 483, "rejected": 17, "added": 0})
def table_in_parts() -> dict[str, object]:
    """Import it again, in three parts.

    The task replaces itself by a chord: three ranges of bytes at once, then one rejects file.
    The orders are there already: each row is written over its order, and none is added.
    """
    before = count_orders()
    result = import_data.delay("orders.csv", parts=3).get(timeout=60)
    return {"imported": result["imported"], "rejected": result["rejected"], "added": count_orders() - before}


@story.step(expect=lambda value: [export["rows"] for export in value] == [count_orders()] * 3)
def export() -> list[dict[str, object]]:
    """Export it.

    CSV for any program, JSON Lines for programs of ours, Excel for people.
    """
    running = {name: export_data.delay(name) for name in ("csv", "jsonl", "xlsx")}
    return follow(running, timeout=60)


@story.step(expect=lambda value: all(Path(path).is_file() for path in value))
def report() -> list[str]:
    """Write a report.

    A page with charts that opens in any browser, and the same as PDF.
    """
    written = generate_report.delay("2026").get(timeout=60)
    return [str(settings.data_dir / written[kind]) for kind in ("html", "pdf")]


@story.step(expect=["Sales 2026-05"])
def pipeline() -> list[str]:
    """Pipeline: import, report, mail.

    A chain of three tasks. The last one mails the report that the second wrote.
    """
    before = mails(BOSS)
    sales_report_by_mail("orders.csv", "2026-05", BOSS).delay().get(timeout=60)
    return wait_for_new_mail(BOSS, before)


@story.step(expect=["A pipeline failed"])
def failing_pipeline() -> list[str]:
    """The same pipeline with a mistake.

    There is no such period. The error callback, a task of its own, mails that the pipeline failed.
    """
    before = mails(ON_CALL)
    sales_report_by_mail("orders.csv", "2026-13", ON_CALL).delay()
    return wait_for_new_mail(ON_CALL, before)


@story.step(expect=["Contact sheet"])
def contact_sheet() -> list[str]:
    """Chord: process a folder, mail one sheet of all.

    The header is the group of all images. The body puts them on one sheet, and mails it.
    """
    before = mails(PHOTOS)
    contact_sheet_by_mail("images", WEB_SIZE, PHOTOS).delay().get(timeout=60)
    return wait_for_new_mail(PHOTOS, before)


@story.step(expect=lambda value: value["dry_run"] and value["kept"] > 0)
def cleanup() -> dict[str, object]:
    """Clean up old files: first only look.

    Files older than 30 days in the output folder. By default nothing is removed, only reported.
    """
    return cleanup_files.delay(".", older_than_days=30).get(timeout=30)


if __name__ == "__main__":
    story.main()
