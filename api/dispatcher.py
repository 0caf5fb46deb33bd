"""The outbox: a thread that sends the message of each row that waits for it.

A request writes its row and answers. So it is as quick with the broker down as with it up, and nothing that
was answered can be lost. Row and message cannot part, wherever this process is killed:

- before the commit: there is no row, and the client got no answer
- between commit and publish: the row stays unsent, and after `LEASE` any dispatcher sends it
- between publish and mark: the message is sent again. The worker claims the row before it works, and of two
  messages one claims it (services/task_runs.py)

Several API processes may run at once: each takes other rows.
"""

import logging
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cache

from kombu import Queue
from sqlalchemy.exc import SQLAlchemyError

from celery_app import app, broker_trouble
from services.models import TaskRecord
from services.task_records import give_back_unsent, mark_sent, take_unsent
from services.task_runs import fail_lost

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.1  # from one batch to the next: two transactions for one row cost as much as for 100
BATCH = 100  # messages in one network round trip
LEASE = timedelta(seconds=10)  # how long rows wait for a dispatcher that was killed with them
IDLE_SECONDS = 1.0  # rows of other processes, and those that a killed one held, are found after this
LONGEST_PAUSE = 1.0  # seconds between two tries while the broker is away
SWEEP_SECONDS = 5.0  # how often to look for tasks whose worker was lost

AWAY = "The broker does not answer. The task is kept, and is sent when the broker is back."


class Dispatcher:
    """Sends what waits, and says what keeps it from that: `trouble` is empty while nothing does."""

    def __init__(self) -> None:
        self.trouble = ""
        self._woken, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._swept = 0.0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there is a new row."""
        self._woken.set()

    def stop(self) -> None:
        """End the thread. What is not sent then stays for the next one."""
        self._ended.set()
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        pause = GATHER_SECONDS
        while not self._ended.is_set():
            try:
                self._do_what_there_is()
                self.trouble, pause = "", GATHER_SECONDS
            except Exception as error:  # noqa: BLE001 - the rows are kept; a thread that has ended sends none
                in_database = isinstance(error, SQLAlchemyError)
                if not self.trouble:
                    log.warning("Will try again. %s", error if in_database else broker_trouble(error))
                self.trouble = "" if in_database else AWAY
                pause = min(LONGEST_PAUSE, 2 * pause)
            self._ended.wait(pause)
            if not self.trouble:  # in trouble, new rows change nothing
                self._woken.wait(IDLE_SECONDS)
                self._woken.clear()

    def _do_what_there_is(self) -> None:
        if time.monotonic() - self._swept > SWEEP_SECONDS:
            fail_lost()
            self._swept = time.monotonic()
        while send_unsent() == BATCH and not self._ended.is_set():
            pass


def send_unsent() -> int:
    """Send the messages of up to `BATCH` rows, and return how many there were.

    Raises what the broker or the database raises. The rows then wait for the next try.
    """
    rows = take_unsent(BATCH, LEASE)
    if not rows:
        check_broker()
        return 0
    known = [row for row in rows if is_known(row.task)]
    ids = [row.id for row in known]
    try:
        publish(known)
    except BaseException:
        give_back_unsent(ids)
        raise
    mark_sent(ids)
    return len(rows)


def check_broker() -> None:
    """Raise if the broker does not answer: so that the next request is told, and not the one after it."""
    with app.connection_for_write() as connection:
        connection.transport.establish_connection()


def publish(rows: Sequence[TaskRecord]) -> None:
    """Send the message of each row. The row's id is also the id of the Celery task.

    These are the two steps of `apply_async`. What else it does takes twice as long as both, and this thread
    shares the interpreter with all requests: it checks arguments, which come from our own rows, and makes a
    result, to which it subscribes. Nobody would read it: the row has the result.
    """
    with app.producer_or_acquire() as producer, producer.batch():
        for row in rows:
            message = app.amqp.as_task_v2(
                row.id,
                row.task,
                kwargs={"task_id": row.id} | row.arguments,
                ignore_result=True,
                argsrepr="()",
                kwargsrepr=f"{{'task_id': '{row.id}'}}",  # what a user has written is in no event and no log
            )
            app.amqp.send_task_message(producer, row.task, message, queue=queue_of(row.task), retry=False)


def is_known(task: str) -> bool:
    """Tell whether the app has a task of this name. One row that cannot be sent must not stop the others.

    It waits until its lease ends, again and again: a newer version of this program may know it.
    """
    if task not in app.tasks:
        app.loader.import_default_modules()
    if task not in app.tasks:
        log.error("Not sent: no task has the name %r here.", task)
    return task in app.tasks


@cache
def queue_of(task: str) -> str:
    """Return the queue of a task, as the app routes it."""
    queue: Queue = app.amqp.router.route({}, task)["queue"]
    return queue.name
