"""What such tasks do in a company: send mail, process images, import and export tables, write reports.

Queue: realworld. Each task decodes its arguments, calls a service that knows nothing of Celery, and
reports. The pipelines at the end are canvases that a program sends.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

from celery import Task, chord, group
from celery.canvas import Signature
from celery.exceptions import Ignore
from celery.signals import celeryd_after_setup
from pydantic import Field

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
from services.order_import import ImportResult, ImportTakenOver
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


@app.task(
    bind=True,
    autoretry_for=(TemporaryMailError,),  # not PermanentMailError: a wrong address stays wrong
    retry_backoff=1,
    retry_backoff_max=60,
    max_retries=8,
)
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
def import_data(self: Task, csv_path: str, parts: int = 1, batch_size: int = 5_000) -> ImportResult:
    """Import orders from a CSV file in the data folder. Bad rows go to a rejects file, with the reason.

    With `parts` above 1, this task is replaced by a chord: that many tasks import a range of bytes each.
    A worker may be killed at any moment: the redelivered task goes on after the last finished batch.
    """
    if parts > 1:
        ranges = order_import.split_byte_ranges(csv_path, parts)
        header = [import_part.s(csv_path, first, end, batch_size) for first, end in ranges]
        return self.replace(chord(header, merge_parts.s(csv_path)))
    return _import(self, csv_path, batch_size, None)


@app.task(bind=True, soft_time_limit=SOFT_LIMIT, time_limit=HARD_LIMIT)
@checked
def import_part(self: Task, csv_path: str, first: int, end: int, batch_size: int = 5_000) -> ImportResult:
    """Import the orders between two bytes of a CSV file: a header member of `import_data`'s chord."""
    return _import(self, csv_path, batch_size, (first, end))


def _import(task: Task, csv_path: str, batch_size: int, byte_range: tuple[int, int] | None) -> ImportResult:
    def report(done: int, total: int) -> None:
        report_progress(task, done, total, f"{done:,} of {total:,} rows")

    try:
        return order_import.import_csv(
            csv_path, batch_size=batch_size, byte_range=byte_range, on_progress=report
        )
    except ImportTakenOver as error:
        # The message was delivered again while we worked. The other run stores the result.
        raise Ignore(str(error)) from error


@app.task
@checked
def merge_parts(results: list[dict[str, Any]], csv_path: str) -> ImportResult:
    """Write one rejects file for all parts, and return the sum of their results."""
    return order_import.merge_rejects(csv_path, results)  # type: ignore[arg-type]  # checked by the service


@app.task(bind=True, soft_time_limit=SOFT_LIMIT, time_limit=HARD_LIMIT)
@checked
def export_data(self: Task, format: str) -> ExportResult:
    """Export all orders as csv, jsonl or xlsx into the data folder's `out/exports`."""

    def report(done: int, total: int) -> None:
        report_progress(self, done, total, f"{done:,} of {total:,} rows")

    return order_export.export_orders(format, on_progress=report)


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


@app.task(bind=True, autoretry_for=(TemporaryMailError,), retry_backoff=1, max_retries=8)
@checked
def mail_report(self: Task, report: dict[str, Any], to_email: str) -> SentMail:
    """Mail a written report, with its PDF."""
    body = f"{report['orders']} orders, revenue {report['revenue']}. The report is attached."
    return mail.send_email(
        str(self.request.id), to_email, f"Sales {report['period']}", body, attachments=[report["pdf"]]
    )


@app.task(bind=True, autoretry_for=(TemporaryMailError,), retry_backoff=1, max_retries=8)
@checked
def mail_contact_sheet(self: Task, sheet: dict[str, Any], to_email: str) -> SentMail:
    """Mail a contact sheet."""
    return mail.send_email(
        str(self.request.id), to_email, "Contact sheet", "The sheet is attached.", attachments=[sheet["path"]]
    )


@app.task(bind=True, autoretry_for=(TemporaryMailError,), retry_backoff=1, max_retries=8)
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
