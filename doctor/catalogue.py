"""What the doctor knows: each hazard with its severity, the measured reason, the remedy and the lesson.

The reasons were measured with Celery and kombu 5.7.0 on Redis. The lessons hold the proof: their statements
are tests.
"""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["danger", "warning", "note"]

ROUTING = "notebooks/03_calling_routing_priorities.ipynb"
STATES = "notebooks/04_states_and_progress.ipynb"
SCHEDULES = "notebooks/05_schedules.ipynb"
GROUPS = "notebooks/07_groups_chunks_starmap.ipynb"
RETRIES = "notebooks/09_retries.ipynb"
DELIVERY = "notebooks/10_delivery_guarantees.ipynb"
TIME = "notebooks/11_time_rate_prefetch.ipynb"
ASYNC = "notebooks/13_async_tasks.ipynb"
MESSAGE = "notebooks/02_inside_a_message.ipynb"
FIRST_TASK = "notebooks/01_first_task.ipynb"
REDIS = "docs/redis.md"
APP = "celery_app.py"


@dataclass(frozen=True)
class Rule:
    """A hazard: how grave it is, why it is one, what to do, and the lesson that shows it."""

    severity: Severity
    why: str
    remedy: str
    lesson: str


RULES: dict[str, Rule] = {
    # --- settings ---
    "no-broker-setting": Rule(
        "danger",
        "Without a broker, Celery silently tries amqp://guest@localhost.",
        "Set broker_url.",
        APP,
    ),
    "unknown-setting": Rule(
        "warning",
        "Celery accepts any name without a word, and a setting that it does not know has no effect.",
        "Correct the name, or remove it.",
        APP,
    ),
    "pickle-accepted": Rule(
        "danger",
        "To open a pickle is to run what its sender wrote: who can write to the queue owns the worker.",
        'Set accept_content = ["json"], and the serializers to "json".',
        MESSAGE,
    ),
    "default-password": Rule(
        "danger",
        "The password is one that everybody tries first. Who gets in can send tasks and read results.",
        "Use a password of your own, from the environment.",
        REDIS,
    ),
    "unknown-time-zone": Rule(
        "danger",
        "With such a name the worker goes round in a loop, callers time out, and nothing says why.",
        "Use a name of the IANA database, such as Asia/Shanghai.",
        SCHEDULES,
    ),
    "always-eager": Rule(
        "warning",
        "Tasks run in the program that calls them. There is no queue, no worker, no acknowledgement.",
        "Set task_always_eager in tests only.",
        FIRST_TASK,
    ),
    "endless-redelivery": Rule(
        "danger",
        "A task that kills its pool child is delivered again for ever, also after a restart: 15 to 96 runs in "
        "5 seconds.",
        "Use task_retry_on_worker_lost (Celery 5.7) with max_retries, and not reject_on_worker_lost.",
        DELIVERY,
    ),
    "limit-beyond-visibility": Rule(
        "danger",
        "Redis delivers again what is not acknowledged within the visibility timeout, also while it still "
        "runs: a task of 8 s with a timeout of 3 s ran three times at once.",
        "Make visibility_timeout in broker_transport_options longer than the longest task.",
        DELIVERY,
    ),
    "long-countdown": Rule(
        "danger",
        "A task that waits in a worker is not acknowledged. When it waits longer than the visibility timeout, "
        "Redis delivers it again: 12 s with a timeout of 3 s made four runs.",
        "Make visibility_timeout longer than the longest countdown, or keep the time in a database.",
        DELIVERY,
    ),
    "limit-order": Rule(
        "warning",
        "The hard limit ends the pool child before the soft one lets the task tidy up.",
        "Make the soft limit shorter than the hard one.",
        TIME,
    ),
    "limit-without-effect": Rule(
        "warning",
        "This pool does not apply the limit: a task that hangs occupies its place for ever.",
        "Use the prefork pool for tasks with limits, or timeouts in the task's own calls.",
        TIME,
    ),
    "no-time-limit": Rule(
        "note",
        "A task that hangs occupies its pool child until somebody notices.",
        "Set task_soft_time_limit and task_time_limit, or --time-limit where the worker is started.",
        TIME,
    ),
    "cancel-on-connection-loss": Rule(
        "danger",
        "When the broker restarts, a running task with late acknowledgement is cancelled, and on Redis it "
        "never ran again (4 of 4).",
        "Leave worker_cancel_long_running_tasks_on_connection_loss off.",
        DELIVERY,
    ),
    "results-never-expire": Rule(
        "warning",
        "Each result stays in the result backend for ever. It grows until it is full.",
        "Set result_expires in seconds, or task_ignore_result where nobody reads results.",
        STATES,
    ),
    "slow-failure": Rule(
        "note",
        "When Redis is frozen, .delay() blocks for more than 45 s; when the result backend is away, for 19 s.",
        "Set socket_timeout and socket_connect_timeout, and a retry_policy with few tries (celery_app.py).",
        APP,
    ),
    "merged-priorities": Rule(
        "note",
        "Redis has one list for several priorities; by default 0 to 2, 3 to 5, 6 to 8, and 9. In one list the "
        "first that came is served first.",
        'Set "priority_steps": list(range(10)) in broker_transport_options, for senders and workers alike.',
        ROUTING,
    ),
    # --- tasks, routes, schedule ---
    "route-matches-nothing": Rule(
        "warning",
        "A route goes by the task's name, not by its module. What it misses lands in the default queue.",
        "Correct the pattern. app.amqp.router.route({}, NAME) says where a task goes.",
        ROUTING,
    ),
    "route-to-unknown-queue": Rule(
        "danger",
        "With task_create_missing_queues off, sending this task raises QueueNotFound.",
        "Add the queue to task_queues, or correct its name.",
        ROUTING,
    ),
    "beat-unknown-task": Rule(
        "danger",
        "beat sends a name. A worker that does not know it throws the message away.",
        "Correct the name: it is the task's own, with its whole module.",
        SCHEDULES,
    ),
    "beat-no-expires": Rule(
        "note",
        "Without a worker each tick leaves a message, and all of them run when it comes back: 13 after 6 s.",
        "Give each entry options={'expires': …}, shorter than its period.",
        SCHEDULES,
    ),
    # --- code ---
    "retry-swallowed": Rule(
        "danger",
        "self.retry raises Retry, an Exception like others. Here it is caught: the retry is sent, and this run "
        "still ends with SUCCESS.",
        "Catch the errors that may pass by name, or add `except Retry: raise` before.",
        RETRIES,
    ),
    "retry-everything": Rule(
        "note",
        "It retries also a TypeError, which fails the same way each time, and SoftTimeLimitExceeded.",
        "Name the errors that may pass.",
        RETRIES,
    ),
    "autoretry-everything": Rule(
        "note",
        "It retries also a TypeError, which fails the same way each time.",
        "Name the errors that may pass, with retry_backoff and max_retries.",
        RETRIES,
    ),
    "wait-in-task": Rule(
        "danger",
        "Celery raises RuntimeError in every pool but gevent and eventlet. Allowed by force, tasks that wait "
        "for tasks block each other when every pool child waits.",
        "Use a chain, or a chord: its body gets the results.",
        GROUPS,
    ),
    "get-without-timeout": Rule(
        "warning",
        "Without a worker it waits for ever.",
        "Write get(timeout=…).",
        FIRST_TASK,
    ),
    "get-without-backend": Rule(
        "danger",
        "Without a result backend, .get() raises NotImplementedError.",
        "Set result_backend, or do not ask for the result.",
        FIRST_TASK,
    ),
    "async-task": Rule(
        "danger",
        "Celery does not await. The body never runs: the result is an EncodeError, or the log says succeeded.",
        "Use a base class that runs coroutines (tasks/base.py), or asyncio.run in a plain function.",
        ASYNC,
    ),
    "naive-eta": Rule(
        "warning",
        "A time without a zone is read as UTC. Unless the machine's own zone is UTC, it is wrong by hours: "
        "early in New York, late in Shanghai; a task with `expires` was revoked at once.",
        "Use datetime.now(UTC), or countdown= and expires= in seconds.",
        SCHEDULES,
    ),
    "success-by-hand": Rule(
        "warning",
        "Whoever waits sees the end too early. Redis never replaces a stored SUCCESS: the return value is "
        "thrown away, and a later error still reads SUCCESS.",
        "Return the value. For progress use a state of your own.",
        STATES,
    ),
    "failure-by-hand": Rule(
        "warning",
        "A stored FAILURE must hold an exception. Nobody can read this one: .state raises.",
        "Raise the exception.",
        STATES,
    ),
    "sent-in-transaction": Rule(
        "warning",
        "The worker may start before the transaction is committed: it does not see the row. When the "
        "transaction is rolled back, the task runs all the same.",
        "Use delay_on_commit, or transaction.on_commit.",
        APP,
    ),
    # --- live broker ---
    "eviction-policy": Rule(
        "danger",
        "At maxmemory Redis deletes keys, and a queue is a key: 50 queued tasks were gone within 0.5 s, "
        "without an error.",
        "Set maxmemory-policy noeviction on the broker. Then sending raises an error, and nothing is lost.",
        REDIS,
    ),
    "no-persistence": Rule(
        "warning",
        "What was queued is lost when Redis is killed: 100 of 100 tasks.",
        "Set appendonly yes on the broker.",
        REDIS,
    ),
    "queue-without-worker": Rule(
        "warning",
        "What is sent there waits for ever. Its state reads PENDING, like that of an unknown task.",
        "Start a worker with -Q and this queue, or correct the queue's name.",
        ROUTING,
    ),
    "stranded-messages": Rule(
        "danger",
        "A sender with other priority_steps than this app's put them there. No worker with these steps reads "
        "that list: 4 of 7 tasks ran.",
        "Give all senders and workers the same priority_steps and sep.",
        ROUTING,
    ),
    "two-beats": Rule(
        "danger",
        "Two beats send everything twice.",
        "Stop one. A lock, as OneScheduler in celery_app.py, keeps a second one from starting.",
        SCHEDULES,
    ),
}
