"""What the tasks that have a row share (services/task_records.py): the claim, the retries, the last word.

The row says what is true. The message may come twice, late, or after its worker was killed; each way ends in
one of three states of the row: completed, failed, cancelled. Whatever interrupts a run, either the message
comes again and finds a row that can be claimed, or somebody writes down that it failed.

| what happens | the row | the message |
|---|---|---|
| it comes twice | stays with who has claimed it | comes back until that one has ended |
| an error that may pass | waits | is sent again, after a pause |
| another error, the soft or hard time limit | failed | ends |
| a cancel by the user | cancelled, at a heartbeat or the next token | ends |
| revoke with terminate | cancelled | ends |
| kill -9 of the pool child | can be claimed when its lease has ended | is sent again by Celery |
| shutdown | waits | goes back to the queue |
| kill -9 of the whole worker | failed: lost (`fail_lost`) | comes after the visibility timeout; nothing to do |
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from celery import Task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.signals import task_revoked
from celery.utils.time import get_exponential_backoff_interval
from sqlalchemy.exc import OperationalError

from celery_app import AppTask
from services import async_runs, redis_clients, task_runs
from services.async_runs import AsyncRun
from services.per_loop import per_loop
from services.task_records import FINISHED, NoSuchTask, WrongStatus, find, request_cancel
from services.task_runs import LEASE, BeingRun, Cancelled, ClaimLost, Run
from services.text_request import TemporaryError
from services.token_stream import AsyncRedisStreamPublisher, RedisStreamPublisher
from settings import settings
from tasks.base import AsyncTask

log = logging.getLogger(__name__)

# Seconds. Six pauses make about a minute. At random: what failed at one moment does not come back at one.
FIRST_PAUSE, LONGEST_PAUSE = 1, 60
COME_BACK = LEASE.total_seconds() / 3  # how soon to look again at a row that somebody else has claimed
INTERRUPTED = "The worker is ending. The task runs again, from the beginning."

_client = cache(redis_clients.client)
_async_client = per_loop(redis_clients.async_client)


class RecordedTask(AppTask):
    """A task with a row. The id of the row is the id of the message."""

    abstract = True
    max_retries = 6

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Write down a failure that the body could not: wrong arguments, a time limit."""
        with suppress(BeingRun, NoSuchTask, ClaimLost):
            if run := task_runs.claim(task_id):
                run.fail(_text_of(exc, self))
                stream = RedisStreamPublisher(_client(settings.result_backend), task_id)
                stream.publish(**_event(Verdict("failed", _text_of(exc, self))))


class AsyncRecordedTask(RecordedTask, AsyncTask):
    """The same for `async def`."""

    abstract = True


@task_revoked.connect
def _cancel_the_row(sender: Any, request: Any, **_: Any) -> None:
    """Let the row follow its message, which an operator has revoked. The worker's main process calls this."""
    if isinstance(sender, RecordedTask):
        with suppress(NoSuchTask, WrongStatus):
            request_cancel(request.id)


# --- What an error means --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """How a run ended, and why, in words for the user. `seconds`: until the next one."""

    status: Literal["failed", "cancelled", "retrying", "interrupted"]
    reason: str = ""
    seconds: float = 0


def verdict_of(error: BaseException, task: Task) -> Verdict:
    """Return what an error in the body means. Raises `Ignore` if the row is another run's by now."""
    if isinstance(error, ClaimLost):
        log.warning("Another worker has task %s now. What this one did is dropped.", error)
        raise Ignore from error
    if isinstance(error, Cancelled):
        return Verdict("cancelled")
    if not isinstance(error, Exception):  # SystemExit, CancelledError: what interrupts may say why, later
        return Verdict("interrupted", INTERRUPTED)
    if isinstance(error, TemporaryError | OperationalError) and task.request.retries < task.max_retries:
        pause = get_exponential_backoff_interval(FIRST_PAUSE, task.request.retries, LONGEST_PAUSE, True)
        # Not less than a second: the row should be free when the message comes.
        return Verdict("retrying", str(error), max(1, pause, getattr(error, "seconds", 0) or 0))
    return Verdict("failed", _text_of(error, task))


def _text_of(error: BaseException, task: Task) -> str:
    if isinstance(error, SoftTimeLimitExceeded):
        _, limit = task.request.timelimit or (None, None)
        limit = limit or task.soft_time_limit or task.app.conf.task_soft_time_limit
        return f"It took longer than {limit} seconds, its soft time limit. Ask for less, or raise the limit."
    if isinstance(error, TemporaryError):
        return f"{error}. Tries: {task.request.retries + 1}."
    return str(error) or repr(error)


def _event(verdict: Verdict) -> dict[str, Any]:
    """Return the event that tells the readers of the stream."""
    kind = "end" if verdict.status in FINISHED else "status"
    return {"kind": kind} | vars(verdict)


# --- The last word --------------------------------------------------------------------------------------


def _come_back(task: Task) -> Ignore:
    """Send the message again, for later, and return what ends this one. It does not count as a retry."""
    task.signature_from_request(countdown=COME_BACK, retries=task.request.retries).apply_async()
    return Ignore()


def _sent_again(task: Task, verdict: Verdict, error: BaseException) -> tuple[Verdict, BaseException]:
    """Send the message of a retry. Return the verdict, and what the task is to raise.

    This comes before the row is changed. A worker that is killed in between leaves a message that finds the
    row claimed, and comes back. The other way round it would leave a row that waits for no message.
    """
    if verdict.status != "retrying":
        return verdict, error
    try:
        return verdict, task.retry(exc=error, countdown=verdict.seconds, throw=False)
    except Reject:
        return Verdict(
            "failed", f"{verdict.reason}. The broker did not take the message of the retry."
        ), error


def _write(run: Run | AsyncRun, verdict: Verdict) -> Any:
    """Write the verdict into the row. Of an `AsyncRun`: return what does so when it is awaited."""
    match verdict.status:
        case "cancelled":
            return run.cancelled()
        case "failed":
            return run.fail(verdict.reason)
        case _:
            return run.give_back(verdict.reason)


@contextmanager
def _row_may_be_out_of_reach(verdict: Verdict) -> Iterator[None]:
    try:
        yield
    except ClaimLost as error:
        raise Ignore from error
    except OperationalError as error:
        if verdict.status not in ("retrying", "interrupted"):
            raise
        log.warning("The row cannot be given back now. It is free when its lease ends. %s", error)


# --- A body that runs in a pool child or in a thread ----------------------------------------------------


def run_recorded(task: Task, task_id: str, work: Callable[[Run, RedisStreamPublisher], Any]) -> Any:
    """Do the work of a row, if nobody else does, and return its result. If it has finished, return that.

    `work` gets the run, whose `check` it calls often, and the stream. What it returns can be written as JSON.
    """
    try:
        run = task_runs.claim(task_id)
    except BeingRun:
        raise _come_back(task) from None
    except OperationalError as error:  # the database is away. The row can say nothing
        raise task.retry(exc=error, countdown=COME_BACK) from error
    if run is None:
        return find(task_id).result
    stream = RedisStreamPublisher(_client(settings.result_backend), task_id)
    try:
        stream.publish("restart")
        stream.publish("status", status="processing")
        with task_runs.heartbeats(run):
            result = work(run, stream)
        run.complete(result)
    except BaseException as error:
        verdict, to_raise = _sent_again(task, verdict_of(error, task), error)
        with _row_may_be_out_of_reach(verdict):
            _write(run, verdict)
        stream.publish(**_event(verdict))
        if verdict.status == "cancelled":
            return None
        raise to_raise from error
    stream.publish("end", status="completed")
    return result


# --- A body that awaits ---------------------------------------------------------------------------------


async def await_recorded(
    task: Task,
    arguments: dict[str, Any],
    user_id: str,
    work: Callable[[AsyncRun, AsyncRedisStreamPublisher], Awaitable[Any]],
) -> Any:
    """Do the same for a coroutine. If the message came without a row, write the row first."""
    task_id = str(task.request.id)
    try:
        await async_runs.keep(task_id, str(task.name), arguments, user_id)
        run = await async_runs.claim(task_id)
    except BeingRun:
        raise await asyncio.to_thread(_come_back, task) from None
    except OperationalError as error:
        raise task.retry(exc=error, countdown=COME_BACK) from error
    if run is None:
        return await async_runs.result_of(task_id)
    stream = AsyncRedisStreamPublisher(_async_client(settings.result_backend), task_id)
    try:
        await stream.publish("restart")
        await stream.publish("status", status="processing")
        async with async_runs.heartbeats(run):
            result = await work(run, stream)
        await run.complete(result)
    except BaseException as error:
        # In a thread: a broker that is away must not hold up the other coroutines.
        reason = _why(run, error)
        verdict, to_raise = await asyncio.to_thread(_sent_again, task, verdict_of(reason, task), reason)
        with _row_may_be_out_of_reach(verdict):
            await _write(run, verdict)
        await stream.publish(**_event(verdict))
        if verdict.status == "cancelled":
            return None
        raise to_raise from error
    await stream.publish("end", status="completed")
    return result


def _why(run: AsyncRun, error: BaseException) -> BaseException:
    """Return what stands behind a CancelledError: a heartbeat has seen that the run is over, or nothing."""
    try:
        run.check()
    except (Cancelled, ClaimLost) as seen:
        return seen
    return error
