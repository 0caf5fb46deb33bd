"""Analyse recorded speech: minutes of pure computing.

Queue: audio. It has a worker of its own, so that short tasks of other queues do not wait behind it.
"""

from typing import Any

from celery import Task
from celery.signals import celeryd_after_setup

from celery_app import app, queue_of
from services.arguments import checked
from services.database import migrate
from services.practice_records import analyze_record
from services.speech_data import SpeechParams, SpeechResult
from tasks.base import report_progress


@celeryd_after_setup.connect
def _prepare_database(instance: Any, **_: Any) -> None:
    """Bring the database tables up to date before a worker takes its first task of this queue."""
    if queue_of(__name__) in instance.app.amqp.queues.consume_from:
        migrate()


@app.task(bind=True)
@checked
def analyze_audio(self: Task, practice_record_id: str, params: SpeechParams | None = None) -> SpeechResult:
    """Analyse the recording of a row of `practice_records`, and report each step.

    `params`, with their units and defaults: services/speech_data.py, as `{"pitch_floor": 100, "min_pause":
    0.5}`. The result goes into the row, too, with `overall_score`, whose formula and limits stand in
    services/speech_score.py. A message that comes again gets the stored result.
    """

    def report(step: str, done: int, total: int) -> None:
        report_progress(self, done, total, step)

    return analyze_record(practice_record_id, params or SpeechParams(), report)
