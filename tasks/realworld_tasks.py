"""What such tasks do in a company: send mail, process images, import and export tables, write reports.

Queue: realworld. Each task decodes its arguments, calls a service that knows nothing of Celery, and
reports. The pipelines at the end are canvases that a program sends.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

from celery import Task, chord, group
from celery.canvas import Signature
from celery.signals import celeryd_after_setup
from pydantic import Field, PositiveInt

from celery_app import app, queue_of
from services import files, images, mail, order_export, order_import, reports
from services.arguments import checked
from services.database import migrate
from services.files import CleanupResult
from services.image_files import ProcessedImage
from services.image_operations import OperationForm, Operations
from services.images import contact_sheet, list_images
from services.mail import SentMail, TemporaryMailError
from services.order_export import ExportResult
from services.order_import import ImportResult, PartResult
from services.reports import ReportResult
from tasks.base import report_progress

# Seconds, for files of any size. Shorter than the visibility timeout, or they would run twice.
SOFT_LIMIT, HARD_LIMIT = 3000, 3300


@celeryd_after_setup.connect
def _prepare_database(instance: Any, **_: Any) -> None:
    """Bring the database tables up to date before a worker takes its first task of this queue."""
    if queue_of(__name__) in instance.app.amqp.queues.consume_from:
        migrate()


# --- Mail -----------------------------------------------------------------------------------------------


MAIL_RETRIES: dict[str, Any] = {
    "autoretry_for": (TemporaryMailError,),  # not PermanentMailError: a wrong address stays wrong
    "retry_backoff": 1,  # wait up to 1, 2, 4 … seconds, at random
    "retry_backoff_max": 60,  # and never longer than this
    # Together some minutes: longer than the claim of a worker that died while it was sending the same mail.
    "max_retries": 10,
}


@app.task(bind=True, **MAIL_RETRIES)
@checked
def send_email(
    self: Task,
    to_email: str | list[str],
    subject: str,
    body: str,
    html: str | None = None,
    attachments: list[str] | None = None,
) -> SentMail:
    """Send a mail. Temporary failures are retried for some minutes, permanent ones fail at once.

    The Message-ID comes from the task id, which stays the same when the message is delivered twice.
    `attachments` are paths in the data folder.
    """
    return mail.send_email(str(self.request.id), to_email, subject, body, html, attachments or ())


# --- Images ---------------------------------------------------------------------------------------------


@app.task(bind=True)
@checked
def process_image(self: Task, image_path: str, operations: Operations) -> ProcessedImage:
    """Apply `operations` to an image in the data folder, and report after each one.

    The operations are resize, crop, filter, rotate, thumbnail, watermark and format. Each is a name, which
    stands for its defaults, or a type with parameters: `["crop", {"type": "resize", "width": 800}]`.
    """

    def report(done: int, total: int, operation: str) -> None:
        report_progress(self, done, total, operation)

    return images.process_image(image_path, operations, on_progress=report)


@app.task
@checked
def make_contact_sheet(processed: list[ProcessedImage], output: str) -> ProcessedImage:
    """Put small copies of processed images on one sheet, `output`, in the data folder's `out`."""
    return contact_sheet([image["path"] for image in processed], output)


# --- Tables ---------------------------------------------------------------------------------------------


@app.task(bind=True, soft_time_limit=SOFT_LIMIT, time_limit=HARD_LIMIT)
@checked
def import_data(
    self: Task, csv_path: str, parts: PositiveInt = 1, batch_size: PositiveInt = 5_000
) -> ImportResult:
    """Import orders from a CSV file in the data folder. Bad rows go to a rejects file, with the reason.

    With `parts` above 1, this task is replaced by a chord: that many tasks import a range of bytes each.
    A worker may be killed at any moment, and any message delivered twice. The task's id names the import:
    whoever works on it goes on after the last finished batch, and all get the same result.
    """
    if parts > 1:
        plan = order_import.begin_import(csv_path, parts, self.request.id)
        header = [import_part.s(plan.import_id, first, end, batch_size) for first, end in plan.ranges]
        return self.replace(chord(header, merge_parts.si(plan.import_id)))
    return order_import.import_csv(
        csv_path, import_id=self.request.id, batch_size=batch_size, on_progress=_rows_of(self)
    )


@app.task(bind=True, soft_time_limit=SOFT_LIMIT, time_limit=HARD_LIMIT)
@checked
def import_part(
    self: Task, import_id: str, first: int, end: int, batch_size: PositiveInt = 5_000
) -> PartResult:
    """Import the orders between two bytes of the file: a header member of `import_data`'s chord."""
    return order_import.import_part(import_id, first, end, batch_size=batch_size, on_progress=_rows_of(self))


@app.task
@checked
def merge_parts(import_id: str) -> ImportResult:
    """Write one rejects file for all parts, and return what came of the import: the chord's body."""
    return order_import.finish_import(import_id)


def _rows_of(task: Task) -> order_import.Progress:
    """Return what a service calls to report the progress of `task` in rows."""

    def report(done: int, total: int) -> None:
        report_progress(task, done, total, f"{done:,} of {total:,} rows")

    return report


@app.task(bind=True, soft_time_limit=SOFT_LIMIT, time_limit=HARD_LIMIT)
@checked
def export_data(self: Task, format: str) -> ExportResult:
    """Export all orders as csv, jsonl or xlsx into the data folder's `out/exports`."""
    return order_export.export_orders(format, on_progress=_rows_of(self))


# --- Reports and files ----------------------------------------------------------------------------------


@app.task
@checked
def generate_report(period: str) -> ReportResult:
    """Write the sales report of a month ("2026-10"), an ISO week ("2026-W41") or a year, as HTML and PDF."""
    return reports.generate_report(period)


Days = Annotated[float, Field(gt=0, le=36_500)]  # to a hundred years


@app.task
@checked
def cleanup_files(folder: str, older_than_days: Days, dry_run: bool = True) -> CleanupResult:
    """Remove old files in the data folder's `out`. By default it only says what it would remove."""
    return files.cleanup_files(folder, timedelta(days=older_than_days), dry_run=dry_run)


# --- Steps that mail a result ---------------------------------------------------------------------------


@app.task(bind=True, **MAIL_RETRIES)
@checked
def mail_report(self: Task, report: ReportResult, to_email: str) -> SentMail:
    """Mail a written report, with its PDF."""
    body = f"{report['orders']} orders, revenue {report['revenue']}. The report is attached."
    return mail.send_email(
        str(self.request.id), to_email, f"Sales {report['period']}", body, attachments=[report["pdf"]]
    )


@app.task(bind=True, **MAIL_RETRIES)
@checked
def mail_contact_sheet(self: Task, sheet: ProcessedImage, to_email: str) -> SentMail:
    """Mail a contact sheet."""
    return mail.send_email(
        str(self.request.id), to_email, "Contact sheet", "The sheet is attached.", attachments=[sheet["path"]]
    )


@app.task(bind=True, **MAIL_RETRIES)
@checked
def mail_failure(self: Task, failed_id: str, to_email: str) -> SentMail:
    """Tell somebody that a pipeline has failed: an error callback that is itself a task."""
    body = f"The task {failed_id} failed. Its result and traceback are in the result backend."
    return mail.send_email(str(self.request.id), to_email, "A pipeline failed", body)


# --- Pipelines: canvases to send ------------------------------------------------------------------------


def process_folder(folder: str, operations: Sequence[OperationForm]) -> group:
    """Return a group that processes all images of `folder` in the data folder, on all cores."""
    return group(process_image.s(path, operations) for path in list_images(folder))


def contact_sheet_by_mail(folder: str, operations: Sequence[OperationForm], to_email: str) -> Signature:
    """Return a canvas: process all images of `folder`, put them on one sheet, mail it."""
    sheet = make_contact_sheet.s("contact-sheets/latest.jpg") | mail_contact_sheet.s(to_email)
    return chord(process_folder(folder, operations), sheet)


def sales_report_by_mail(csv_path: str, period: str, to_email: str) -> Signature:
    """Return a canvas: import a file, write the report, mail it. If a step fails, mail that instead."""
    steps = import_data.si(csv_path) | generate_report.si(period) | mail_report.s(to_email)
    return steps.on_error(mail_failure.s(to_email))
