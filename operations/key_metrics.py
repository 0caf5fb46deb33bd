"""The five numbers that tell whether the app does well, each with its threshold and what to do.

The thresholds for a warning are those of the course: latency under 5 s, success above 95 %, all workers there,
fewer than 100 waiting messages in each queue, memory under 80 %. Critical is our own choice: twice as bad.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, TypedDict

from broker import broker_channel, queue_lengths
from celery_app import app
from operations.events import TaskEvents
from operations.health import CANARY_SECONDS, canary, queues_by_worker, unread_queues
from settings import settings

Status = Literal["ok", "warning", "critical"]
STATUSES: tuple[Status, ...] = ("ok", "warning", "critical")
MOST_RESULTS = 1_000
RESULT_SECONDS = 3600.0  # a success is kept that long, see celery_app.py; a failure longer


class KeyMetric(TypedDict):
    """One number. `value` is None if there was nothing to measure. `remedy` is empty while it is ok."""

    status: Status
    value: float | None
    threshold: float
    unit: str
    source: str
    remedy: str


@dataclass(frozen=True)
class Threshold:
    """From which value on a number is a warning, and from which critical. It may be bad above or below."""

    unit: str
    warning: float
    critical: float
    remedy: str
    is_bad: Literal["above", "below"] = "above"

    def judge(self, value: float | None) -> Status:
        """Return the status of a value."""
        if value is None:
            return "ok"
        sign = 1 if self.is_bad == "above" else -1
        reached = [sign * value >= sign * limit for limit in (self.warning, self.critical)]
        return STATUSES[sum(reached)]


THRESHOLDS = {
    "task_latency": Threshold(
        "s", 5, 10, "Tasks wait too long: start more workers for the queue that is longest."
    ),
    "success_rate": Threshold(
        "%", 95, 90, "Tasks fail: read the workers' logs, or look at failed tasks in Flower.", "below"
    ),
    "workers": Threshold(
        "workers",
        settings.expected_workers - 1,
        min(settings.expected_workers - 1, settings.expected_workers // 2),
        "Workers are missing: start them with ./start_worker.sh",
        "below",
    ),
    "queue_length": Threshold(
        "messages", 100, 200, "A queue grows: start more workers for it, or send less."
    ),
    "memory": Threshold("%", 80, 90, "The broker's memory fills: see what lies in it with ./learn xray"),
}


def get_key_metrics(events: TaskEvents | None = None) -> dict[str, KeyMetric]:
    """Return the key metrics by name: task_latency, success_rate, workers, queue_length, memory.

    Latency is from sent to started, the 95th percentile; the success rate is that of tasks that have ended.
    With `events`, both are of the last five minutes. Without, the latency is that of a ping that is sent to
    each queue now (the slowest counts), and the success rate that of the results of the last hour.
    Raises `OperationalError` if the broker or the result backend does not answer.
    """
    with broker_channel() as channel:
        lengths, memory = queue_lengths(channel), memory_in_use(channel)
    read = queues_by_worker()
    unread = unread_queues(read)
    latency, success = _from_events(events) if events else _measured_now()
    longest = max(lengths, key=lambda queue: lengths[queue]["waiting"])
    metrics = {
        "task_latency": _metric("task_latency", *latency),
        "success_rate": _metric("success_rate", *success),
        "workers": _metric("workers", len(read), "workers that answer now"),
        "queue_length": _metric("queue_length", lengths[longest]["waiting"], f"longest queue: {longest}"),
        "memory": _metric("memory", round(100 * memory, 1), "broker"),
    }
    if unread:
        metrics["workers"] |= {"status": "critical", "remedy": f"No worker reads {', '.join(unread)}."}
    return metrics


def worst(metrics: dict[str, KeyMetric]) -> Status:
    """Return the worst status of them all."""
    return max((metric["status"] for metric in metrics.values()), key=STATUSES.index)


def _metric(name: str, value: float | None, source: str) -> KeyMetric:
    threshold = THRESHOLDS[name]
    status = threshold.judge(value)
    return {
        "status": status,
        "value": value,
        "threshold": settings.expected_workers if name == "workers" else threshold.warning,
        "unit": threshold.unit,
        "source": source,
        "remedy": "" if status == "ok" else threshold.remedy,
    }


Measured = tuple[float | None, str]


def _from_events(events: TaskEvents) -> tuple[Measured, Measured]:
    numbers = events.snapshot()
    waits = sorted(wait for _, wait in numbers.recent_waits)
    latency = round(waits[min(len(waits) - 1, int(0.95 * len(waits)))], 3) if waits else None
    ends = [succeeded for _, succeeded in numbers.recent_ends]
    return (
        (latency, f"95 % of {len(waits)} tasks in 5 minutes"),
        (_percent(ends), f"{len(ends)} tasks in 5 minutes"),
    )


def _measured_now() -> tuple[Measured, Measured]:
    answers = canary()
    seconds = {queue: CANARY_SECONDS if answer is None else answer for queue, answer in answers.items()}
    slowest = max(seconds, key=lambda queue: seconds[queue])
    source = f"a ping to {slowest}"
    if silent := [queue for queue, answer in answers.items() if answer is None]:
        source = f"no answer to a ping in {', '.join(silent)}"
    ends = list(islice(_recent_results(), MOST_RESULTS))
    return (
        (round(seconds[slowest], 3), source),
        (_percent(ends), f"{len(ends)} results of the last hour"),
    )


def _percent(ends: list[bool]) -> float | None:
    return round(100 * sum(ends) / len(ends), 1) if ends else None


def _recent_results() -> Iterator[bool]:
    """Give of each task that ended in the last hour whether it succeeded. Retries and cancels are no end."""
    client = app.backend.client
    oldest = datetime.now(UTC).timestamp() - RESULT_SECONDS
    prefix = app.backend.task_keyprefix.decode()
    for key in islice(client.scan_iter(f"{prefix}*", count=1000), MOST_RESULTS):
        meta = _meta_of(client, key)
        if meta.get("status") in ("SUCCESS", "FAILURE") and _ended_at(meta) >= oldest:
            yield meta["status"] == "SUCCESS"


def _meta_of(client: Any, key: bytes) -> dict[str, Any]:
    try:
        meta = json.loads(client.get(key) or b"{}")
    except ValueError:  # of another program
        return {}
    return meta if isinstance(meta, dict) else {}


def _ended_at(meta: dict[str, Any]) -> float:
    ended = datetime.fromisoformat(meta["date_done"]) if meta.get("date_done") else None
    return ended.replace(tzinfo=ended.tzinfo or UTC).timestamp() if ended else time.time()


def memory_in_use(channel: Any) -> float:
    """Return the share of its memory that the broker uses: of `maxmemory`, or of the machine's if unset."""
    memory = channel.client.info("memory")
    allowed = memory.get("maxmemory") or memory.get("total_system_memory") or 0
    return memory["used_memory"] / allowed if allowed else 0.0
