"""The scheduled jobs of a marketplace. beat_schedule in celery_app.py says when each runs.

Queue: maintenance. A scheduled task may come twice, late, or while the run before still works. What to learn
here: the schedule cannot prevent that, and the job must. See `run` in services/jobs.py, and services/ticks.py.
"""

from typing import Any

from celery import Task
from celery.signals import celeryd_after_setup

from celery_app import app, queue_of, tick_of_message
from services import jobs, marketplace, marketplace_chats, marketplace_statistics
from services.database import migrate
from services.jobs import Counts, Job
from services.leases import LeaseHeld

JOB: dict[str, Any] = {
    # The holder is at work, or it was killed: then its lease ends, and this run is the one that counts.
    "autoretry_for": (LeaseHeld,),
    "default_retry_delay": round(jobs.LEASE.total_seconds()),
    "max_retries": 2,
    # Seconds. Shorter than the lease: when that ends, its holder does no more.
    "soft_time_limit": 40,
    "time_limit": 50,
}


@celeryd_after_setup.connect
def _prepare_database(instance: Any, **_: Any) -> None:
    """Bring the database tables up to date before a worker takes its first task of this queue."""
    if queue_of(__name__) in instance.app.amqp.queues.consume_from:
        migrate()


def _run(task: Task, job: Job) -> Counts | None:
    """Do `job`, for the tick that the message of `task` names. Return None if that tick was done."""
    return jobs.run(job, tick_of_message(task))


# --- Customer service -----------------------------------------------------------------------------------


@app.task(bind=True, **JOB)
def process_customer_service_queue(self: Task) -> Counts | None:
    """Give waiting users an agent. Return how many got one, and how many still wait."""
    return _run(self, marketplace_chats.process_customer_service_queue)


@app.task(bind=True, **JOB)
def auto_end_timeout_chats(self: Task) -> Counts | None:
    """End chats that are silent for 10 minutes."""
    return _run(self, marketplace_chats.auto_end_timeout_chats)


@app.task(bind=True, **JOB)
def send_timeout_warnings(self: Task) -> Counts | None:
    """Warn in chats that are silent for 8 minutes."""
    return _run(self, marketplace_chats.send_timeout_warnings)


@app.task(bind=True, **JOB)
def cleanup_long_inactive_chats(self: Task) -> Counts | None:
    """Delete ended chats in which nobody wrote for 30 days."""
    return _run(self, marketplace.cleanup_long_inactive_chats)


# --- What runs out --------------------------------------------------------------------------------------


@app.task(bind=True, **JOB)
def cancel_expired_tasks(self: Task) -> Counts | None:
    """Cancel open tasks after their deadline."""
    return _run(self, marketplace.cancel_expired_tasks)


@app.task(bind=True, **JOB)
def check_expired_coupons(self: Task) -> Counts | None:
    """Let coupons expire."""
    return _run(self, marketplace.check_expired_coupons)


@app.task(bind=True, **JOB)
def check_expired_invitation_codes(self: Task) -> Counts | None:
    """Let invitation codes expire."""
    return _run(self, marketplace.check_expired_invitation_codes)


@app.task(bind=True, **JOB)
def check_expired_points(self: Task) -> Counts | None:
    """Let points expire, and take them from their users' balances."""
    return _run(self, marketplace.check_expired_points)


@app.task(bind=True, **JOB)
def check_and_end_activities(self: Task) -> Counts | None:
    """Start planned activities, and end those whose time is over."""
    return _run(self, marketplace.check_and_end_activities)


@app.task(bind=True, **JOB)
def cleanup_old_tasks(self: Task) -> Counts | None:
    """Delete tasks that were cancelled 180 days ago."""
    return _run(self, marketplace.cleanup_old_tasks)


# --- Statistics -----------------------------------------------------------------------------------------


@app.task(bind=True, **JOB)
def update_all_users_statistics(self: Task) -> Counts | None:
    """Count tasks and spending of all users for whom something has changed."""
    return _run(self, marketplace_statistics.update_all_users_statistics)


@app.task(bind=True, **JOB)
def update_featured_task_experts_response_time(self: Task) -> Counts | None:
    """Write how fast each featured expert answers."""
    return _run(self, marketplace_statistics.update_featured_task_experts_response_time)


@app.task(bind=True, **JOB)
def generate_hourly_stats(self: Task) -> Counts | None:
    """Write what happened in the hour that has ended, and in missing ones before."""
    return _run(self, marketplace_statistics.generate_hourly_stats)
