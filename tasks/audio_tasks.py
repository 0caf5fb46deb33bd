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
from services.recording_runs import analyze_run
from services.redis_clients import client
from services.speech_data import SpeechParams, SpeechResult
from services.task_records import find
from services.task_runs import LEASE, BeingRun, claim
from services.token_stream import RedisStreamPublisher
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


@app.task(bind=True)
@checked
def analyze_recording(self: Task, task_id: str, path: str) -> SpeechResult | None:
    """Analyse the recording at `path` for the row `task_id` (services/task_records.py), and write it there.

    It is what the web front sends. A message that comes again after the task has finished gives what is
    stored. While another worker runs it, this one waits until that one's lease would have ended.
    Raises `NoSuchTask`, and `ValueError` for what is no recording.
    """
    try:
        run = claim(task_id)
    except BeingRun as busy:
        raise self.retry(exc=busy, countdown=LEASE.total_seconds() + 1) from None
    if run is None:
        stored: SpeechResult | None = find(task_id).result
        return stored
    return analyze_run(run, path, RedisStreamPublisher(client(), task_id))
