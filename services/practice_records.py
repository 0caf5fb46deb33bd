"""Recordings that somebody practises with, as rows: written before the analysis, and completed once.

What to learn here: a message that comes twice analyses nothing twice that is finished. Two workers may still
both be at it. The result is written by one statement that expects an unfinished row, so the first result
stays, and both return that one.
"""

import uuid
from typing import Any

from sqlalchemy import select, update

from services.arguments import checked
from services.database import now, reading, writing
from services.models import PracticeRecord
from services.paths import inside
from services.speech import Progress, analyze
from services.speech_data import SpeechParams, SpeechResult
from settings import settings


class NoSuchRecord(LookupError):
    """No practice record has this id."""


@checked
def create(path: str) -> PracticeRecord:
    """Write a row for the recording at `path` in the data folder, and return it. The file may come later.

    Raises `ValueError` for a path that leads outside the data folder.
    """
    inside(settings.data_dir, path)
    record = PracticeRecord(id=str(uuid.uuid4()), path=path, status="pending")
    with writing() as session:
        record.created_at = now(session)
        session.add(record)
    return record


def find(record_id: str) -> PracticeRecord:
    """Return a row. Raises `NoSuchRecord`."""
    with reading() as session:
        record = session.scalars(select(PracticeRecord).where(PracticeRecord.id == record_id)).one_or_none()
    if record is None:
        raise NoSuchRecord(f"practice_record_id={record_id!r}: no practice record has this id")
    return record


def analyze_record(record_id: str, params: SpeechParams, on_progress: Progress | None = None) -> SpeechResult:
    """Analyse the recording of a row, write the result into the row, and return it.

    A row that is completed already gives its result, whatever `params` are: for another analysis, make
    another row. One that has failed is tried again: its file may have been mended.

    Raises `NoSuchRecord`, and `ValueError` as `analyze` does: then the row says why, too.
    """
    record = find(record_id)
    if record.status == "completed":
        return record.result
    try:
        result = analyze(record.path, params, on_progress)
    except ValueError as error:
        _finish(record_id, status="failed", error=str(error))
        raise
    return _finish(record_id, status="completed", result=result, error=None).result


def _finish(record_id: str, **values: Any) -> PracticeRecord:
    """Write how an analysis ended, unless the row is completed. Return the row as it is then."""
    with writing() as session:
        unfinished = update(PracticeRecord).where(
            PracticeRecord.id == record_id, PracticeRecord.status != "completed"
        )
        session.execute(unfinished.values(**values))
    return find(record_id)
