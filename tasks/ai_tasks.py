"""Text from a model, while somebody watches: a plain task, and one that awaits.

Queue: ai. Both have a row in the database, and write their tokens to a stream in Redis while they run. What
happens to the row in each kind of trouble stands in recorded.py.
"""

from typing import Any

from celery import Task
from celery.signals import celeryd_after_setup

from celery_app import app, queue_of
from services.arguments import checked
from services.async_runs import AsyncRun
from services.database import migrate
from services.task_runs import Run, fail_lost
from services.text_generation import TextResult, generate, generate_async
from services.text_request import text_request
from services.token_stream import AsyncRedisStreamPublisher, RedisStreamPublisher
from tasks.recorded import AsyncRecordedTask, RecordedTask, await_recorded, run_recorded


@celeryd_after_setup.connect
def _prepare_database(instance: Any, **_: Any) -> None:
    """Bring the database tables up to date before a worker takes its first task of this queue."""
    if queue_of(__name__) in instance.app.amqp.queues.consume_from:
        migrate()


class StageResult(TextResult):
    """What a stage of a project gave."""

    project_id: str
    stage_name: str


@app.task(bind=True, base=RecordedTask)
def run_ai_text_generation(
    self: Task,
    task_id: str,
    prompt: str,
    model: str = "markov",
    max_tokens: int = 200,
    seed: int | None = None,
) -> TextResult | None:
    """Generate a text for the row `task_id`, and write each piece to its stream. Return the text.

    `model`: `markov` and `markov-slow` are built in; another name is a model of the server that
    OPENAI_BASE_URL names. If the row has finished, return its result: None if it failed or was cancelled.
    """

    def work(run: Run, stream: RedisStreamPublisher) -> TextResult:
        def on_token(piece: str) -> None:
            run.check()
            stream.publish("token", text=piece)

        def on_progress(percent: int, step: str) -> None:
            run.report(percent, step)
            stream.publish("progress", percent=percent, step=step)

        return generate(text_request(prompt, model, max_tokens, seed), on_token, on_progress)

    return run_recorded(self, task_id, work)


@app.task(bind=True, base=AsyncRecordedTask)
@checked
async def execute_llm_stage(
    self: Task,
    project_id: str,
    stage_name: str,
    input_data: dict[str, Any],
    user_id: str,
    task_id: str | None = None,
) -> StageResult | None:
    """Generate the text of one stage of a project, as `run_ai_text_generation` does, and await meanwhile.

    `input_data` holds `prompt`, and may hold `model`, `max_tokens` and `seed`. The id of the message is the
    id of its row and of its stream. A sender need not write the row; a dispatcher that has one gives its
    `task_id`, which is the same.
    """

    async def work(run: AsyncRun, stream: AsyncRedisStreamPublisher) -> StageResult:
        async def on_token(piece: str) -> None:
            run.check()
            await stream.publish("token", text=piece)

        async def on_progress(percent: int, step: str) -> None:
            await run.report(percent, step)
            await stream.publish("progress", percent=percent, step=step)

        text = await generate_async(text_request(**input_data), on_token, on_progress)
        return {"project_id": project_id, "stage_name": stage_name, **text}

    arguments = {
        "project_id": project_id,
        "stage_name": stage_name,
        "input_data": input_data,
        "user_id": user_id,
    }
    return await await_recorded(self, arguments, user_id, work)


@app.task
@checked
def fail_lost_tasks() -> int:
    """Say of tasks whose worker was lost that they failed. Return how many there were."""
    return fail_lost()
