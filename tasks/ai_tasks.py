"""Long tasks that a user watches, and may cancel: text that arrives word by word.

Queue: ai. The row of the task is the truth (services/task_records.py), and the message only says "look at the
row". So a message may come twice, a worker may be killed, and the text is there once.
"""

from typing import Any

from celery import Task
from celery.signals import celeryd_after_setup

from celery_app import app, queue_of
from services.arguments import checked
from services.database import migrate
from services.redis_clients import client
from services.task_records import find
from services.task_runs import LEASE, BeingRun, claim, fail_lost
from services.text_generation import TextResult, generate
from services.text_request import text_request
from services.token_stream import RedisStreamPublisher


@celeryd_after_setup.connect
def _prepare_database(instance: Any, **_: Any) -> None:
    """Bring the database tables up to date before a worker takes its first task of this queue."""
    if queue_of(__name__) in instance.app.amqp.queues.consume_from:
        migrate()


@app.task(bind=True)
@checked
def run_ai_text_generation(
    self: Task,
    task_id: str,
    prompt: str,
    model: str = "markov",
    max_tokens: int = 200,
    seed: int | None = None,
) -> TextResult | None:
    """Generate the text that the row `task_id` asks for, and write it there. Return it, or None if cancelled.

    A message that comes again after the task has finished gives what is stored. While another worker runs
    it, this one waits until that one's lease would have ended: then it may have been killed.
    Raises `NoSuchTask`, and `ValueError` for arguments that cannot be.
    """
    request = text_request(prompt, model, max_tokens, seed)
    try:
        run = claim(task_id)
    except BeingRun as busy:
        raise self.retry(exc=busy, countdown=LEASE.total_seconds() + 1) from None
    if run is None:
        stored: TextResult | None = find(task_id).result
        return stored
    return generate(run, request, RedisStreamPublisher(client(), task_id))


@app.task
def fail_lost_tasks() -> int:
    """Say of rows whose worker was lost that they failed: replay runs them again. Return how many."""
    return fail_lost()
