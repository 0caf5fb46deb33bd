"""Tasks that are wrong on purpose, for lessons that show what happens then. Do not copy them.

They stand in the order of the notebooks. Where the right way is a task of this module too, it comes next;
else the text says where it is.

The app does not include this module. A lesson starts a worker that does:

    sandbox.start_worker(["advanced"], include=["lab.wrong_tasks"])
"""

import asyncio
import os
import signal
import time
from functools import cache
from typing import Any

import redis.asyncio
from celery import Task, group
from celery.exceptions import Ignore
from celery.result import allow_join_result

from celery_app import app
from services.failures import record_failure
from services.simulation import simulate_service, simulate_waiting, simulate_work
from settings import settings
from tasks.base import AsyncTask
from tasks.basic_tasks import add

# --- 02 Inside a message -------------------------------------------------------------------------------


@app.task
def month_name(names: dict[int, str], month: int) -> str:
    """Return the name of a month.

    Wrong: the keys of `names` are numbers where it is called, and text where it runs.
    Right: keys that are text, or a list.
    """
    return names[month]


@app.task
def check_password(password: str) -> bool:
    """Return whether a password is long enough.

    Wrong: a secret travels as an argument, and is copied to more places than one thinks.
    Right: send the user's id. The task reads the secret where it is kept.
    """
    return len(password) >= 12


# --- 04 States and progress ----------------------------------------------------------------------------


@app.task(bind=True)
def succeed_too_early(self: Task, rows: list[str]) -> int:
    """Return the sum of `rows`, and tell how many there are.

    Wrong: the result backend keeps this SUCCESS. The sum, or the error of a bad row, is thrown away.
    Right: `monitored_task` in tasks/advanced_tasks.py returns both.
    """
    self.update_state(state="SUCCESS", meta={"rows": len(rows)})
    return sum(int(row) for row in rows)


@app.task(bind=True)
def fail_by_hand(self: Task, reason: str) -> None:
    """Fail, and say why.

    Wrong: a stored FAILURE must hold an exception. Nobody can read this one.
    Right: raise the exception.
    """
    self.update_state(state="FAILURE", meta={"reason": reason})
    raise Ignore  # or Celery would store SUCCESS


# --- 07 Groups, chunks, starmap ------------------------------------------------------------------------


@app.task
def sum_and_wait(numbers: list[int]) -> int:
    """Double each number in a task of its own, and return the sum.

    Wrong: a task that waits for other tasks. Celery raises RuntimeError.
    Right: a chord. Its body is sent when the other tasks have ended.
    """
    return sum(group(add.s(number, number) for number in numbers).delay().get(timeout=30))


@app.task
def sum_and_wait_by_force(numbers: list[int]) -> int:
    """Do the same, and switch Celery's warning off.

    Wrong: it occupies a pool child while its parts need one.
    """
    with allow_join_result():
        return sum_and_wait(numbers)


# --- 08 Chords -----------------------------------------------------------------------------------------


@app.task
def report_failure_by_id(task_id: str) -> None:
    """Record the state of a failed task: an error callback.

    Wrong: with one argument it is sent as a task. It waits for a worker, and may run before the failure
    is stored.
    Right: `report_failure` in tasks/advanced_tasks.py has three arguments, and is called at once.
    """
    record_failure(task_id, f"the state is {app.AsyncResult(task_id).state}")


# --- 09 Retries ----------------------------------------------------------------------------------------


@app.task(bind=True, max_retries=3)
def swallow_retry(self: Task, failures: int) -> str:
    """Call a simulated service that is away for the first `failures` tries, or give up with a fallback.

    Wrong: `self.retry` raises Retry, an Exception like others. The outer `except` swallows it.
    Right: `retry_with_backoff` in tasks/advanced_tasks.py catches ConnectionError alone.
    """
    try:
        try:
            return simulate_service(self.request.retries + 1, failures)
        except ConnectionError as error:
            raise self.retry(exc=error, countdown=0.2) from error
    except Exception:  # noqa: BLE001 - this line is the mistake
        return "fallback"


@app.task(autoretry_for=(Exception,), retry_kwargs={"countdown": 0.2, "max_retries": 3})
def retry_everything(amount: str) -> int:
    """Return `amount` as a number.

    Wrong: bad data is retried, though it fails the same way each time.
    Right: `robust_task` in tasks/advanced_tasks.py retries what may pass.
    """
    return int(amount)


@app.task(bind=True, base=Task)  # Celery's own task class, with the defaults of Celery
def retry_by_default(self: Task, failures: int) -> str:
    """Call a simulated service that is away for the first `failures` tries.

    Wrong: no countdown. Celery's default is a wait of 180 seconds before each retry.
    Right: `retry_with_backoff` in tasks/advanced_tasks.py chooses its own.
    """
    try:
        return simulate_service(self.request.retries + 1, failures)
    except ConnectionError as error:
        raise self.retry(exc=error) from error


@app.task(bind=True, max_retries=1)
def retry_without_error(self: Task, failures: int) -> str:
    """Call a simulated service, with one retry.

    Wrong: no `exc`. When the retries are used up, the caller is not told what went wrong.
    Right: `self.retry(exc=error, …)`, as in `retry_with_backoff`.
    """
    try:
        return simulate_service(self.request.retries + 1, failures)
    except ConnectionError as error:
        raise self.retry(countdown=0.1) from error


@app.task(bind=True, autoretry_for=(ConnectionError,), retry_backoff=1, max_retries=5)
def retry_after_one_second(self: Task, failures: int) -> str:
    """Call a simulated service, and wait 1, 2, 4 … seconds before the retries.

    Wrong, if somebody counts on the first second: the jitter makes it shorter.
    Right: `autoretry_task` in tasks/advanced_tasks.py says in `retry_jitter` what it does.
    """
    return simulate_service(self.request.retries + 1, failures)


# --- 10 Delivery guarantees ----------------------------------------------------------------------------


def work_unless_redelivered(task: Task) -> str:
    """Take a minute, so that there is time to kill the worker. A redelivered message is done at once."""
    if not (task.request.delivery_info or {})["redelivered"]:
        simulate_work(60)
    return "done"


@app.task(bind=True, acks_late=False)
def acknowledge_early(self: Task) -> str:
    """Take a minute.

    Wrong, unless the work may be lost: the message is acknowledged before the work begins.
    """
    return work_unless_redelivered(self)


@app.task(bind=True, acks_late=True)
def acknowledge_late(self: Task) -> str:
    """Take a minute. Right: the message is acknowledged when the work has ended."""
    return work_unless_redelivered(self)


@app.task(retry_on_worker_lost=False)
def crash() -> None:
    """Kill the pool child that runs it, as the kernel does when memory runs out. It fails."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(retry_on_worker_lost=False, reject_on_worker_lost=True, max_retries=1)
def crash_and_reject() -> None:
    """Do the same. Wrong: the message goes back to the queue each time. `max_retries` does not count that."""
    crash()


@app.task(retry_on_worker_lost=True, max_retries=1)
def crash_and_retry() -> None:
    """Do the same. Right: it is retried as often as `max_retries` says, and then it fails."""
    crash()


@app.task
def charge_after_check(invoice: str, seconds: float) -> str:
    """Charge an invoice unless it is marked as charged. The charges are in the result backend's Redis.

    Wrong: between the check and the mark, a second delivery of the message passes the check too.
    Right: `idempotent_task` in tasks/advanced_tasks.py checks and marks in one step.
    """
    backend: Any = app.backend
    if backend.client.sismember("charged", invoice):  # check
        return "charged before"
    backend.client.rpush("charges", invoice)  # work: the money moves
    simulate_work(seconds)  # … and a receipt is printed
    backend.client.sadd("charged", invoice)  # mark
    return "charged"


# --- 11 Time, rate, prefetch ---------------------------------------------------------------------------


@app.task(soft_time_limit=1, time_limit=2)
def never_stop() -> None:
    """Work for ever.

    Wrong: `except Exception` also swallows SoftTimeLimitExceeded, which says that the time is over.
    Right: `time_limited_task` in tasks/advanced_tasks.py catches that error by its name.
    """
    while True:
        try:  # noqa: SIM105
            simulate_work(60)
        except Exception:  # noqa: BLE001, S110 - this line is the mistake
            pass


# --- 13 Async tasks ------------------------------------------------------------------------------------


@app.task
async def greet_unawaited(name: str) -> str:
    """Wait for another service, and greet.

    Wrong: Celery does not await. It stores what the call returns, and that is a coroutine.
    Right: `base=AsyncTask`, as in `count_on_the_loop`.
    """
    await simulate_waiting(0.1)
    return f"Hello, {name}!"


@app.task(ignore_result=True)
async def count_unawaited(key: str) -> None:
    """Count in Redis.

    Wrong in the same way, and nothing shows it: without a result to store, there is no error.
    """
    await async_redis().incr(key)


@cache
def async_redis() -> redis.asyncio.Redis:
    """Return the client of this process. It keeps its connection open for the next call."""
    return redis.asyncio.Redis(unix_socket_path=str(settings.sandbox_folder / "broker.sock"), db=1)


@app.task
def count_by_asyncio_run(key: str) -> int:
    """Count in Redis.

    Wrong: `asyncio.run` makes an event loop and closes it. The client's connection belongs to that one.
    """

    async def count() -> int:
        return await async_redis().incr(key)

    return asyncio.run(count())


@app.task(base=AsyncTask)
async def count_on_the_loop(key: str) -> int:
    """Count in Redis. Right: the loop stays, and the client with it."""
    return await async_redis().incr(key)


@app.task(base=AsyncTask, bind=True)
async def wait_on_the_loop(self: Task, seconds: float) -> dict[str, Any]:
    """Wait, and tell who waited where, and when (seconds since 1970). Right.

    When it is cancelled, it tidies up: it leaves its id in the list `tidied`.
    """
    started = time.time()
    try:
        await simulate_waiting(seconds)
    except asyncio.CancelledError:
        await async_redis().rpush("tidied", self.request.id or "")
        raise
    loop = id(asyncio.get_running_loop())
    return {"id": self.request.id, "pid": os.getpid(), "loop": loop, "started": started, "ended": time.time()}


# --- 14 Mail and images --------------------------------------------------------------------------------


@app.task
def count_bytes(picture: bytes) -> int:
    """Return the size of a picture.

    Wrong: the picture itself travels through the broker.
    Right: `process_image` in tasks/realworld_tasks.py gets the path of its file.
    """
    return len(picture)
