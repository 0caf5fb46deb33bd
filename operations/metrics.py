"""What Prometheus reads: tasks from their events, and queues as they are at that moment.

    metrics_text(events)          # for a route of a web app
    serve(events, 9808)           # alone: python manage.py metrics

A queue on Redis is ten lists here, and what workers hold is in none of them. An exporter that asks for the
length of one list shows a part: these numbers are of all. Counters begin at 0 with this program, as
`celery_events_since_timestamp_seconds` says; Prometheus allows for that in `rate()` and `increase()`.
Several web processes would each count for themselves: let one program serve the metrics.
"""

import threading
from collections.abc import Iterable, Iterator
from itertools import accumulate

from kombu.exceptions import OperationalError
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from broker import QueueLength, broker_channel, queue_lengths
from operations.events import BUCKETS, Durations, Snapshot, TaskEvents
from operations.key_metrics import memory_in_use

ENDS = (*map(str, BUCKETS), "+Inf")


class AppCollector(Collector):
    """All metrics of the app, made anew for each scrape. A broker that is away is a metric, not an error."""

    def __init__(self, events: TaskEvents) -> None:
        self._events = events

    def describe(self) -> Iterable[Metric]:
        """Return nothing: Prometheus' registry need not ask the broker at the start."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Give all metrics."""
        yield from _of_tasks(self._events.snapshot())
        try:
            with broker_channel() as channel:
                lengths, memory = queue_lengths(channel), memory_in_use(channel)
        except OperationalError:
            yield GaugeMetricFamily("celery_broker_up", "1 if the broker answers.", 0)
            return
        yield GaugeMetricFamily("celery_broker_up", "1 if the broker answers.", 1)
        yield GaugeMetricFamily(
            "celery_broker_memory_ratio", "Memory of the broker in use, of what it may have.", memory
        )
        yield from _of_queues(lengths)


def _of_tasks(numbers: Snapshot) -> Iterator[Metric]:
    counts = CounterMetricFamily("celery_task_events", "What happened to tasks.", labels=("task", "event"))
    for labels, count in sorted(numbers.counts.items()):
        counts.add_metric(labels, count)
    yield counts
    yield _histogram("celery_task_runtime_seconds", "How long tasks ran.", "task", numbers.runtimes)
    yield _histogram(
        "celery_task_wait_seconds", "From sent to started, without countdown or ETA.", "queue", numbers.waits
    )
    yield GaugeMetricFamily("celery_workers", "Workers that send heartbeats.", len(numbers.workers))
    yield GaugeMetricFamily(
        "celery_events_connected", "1 if this program receives events.", numbers.is_connected
    )
    yield GaugeMetricFamily(
        "celery_events_since_timestamp_seconds", "When the counters began at 0.", numbers.since
    )
    yield CounterMetricFamily("celery_event_gaps", "How often events may have been missed.", numbers.gaps)
    yield CounterMetricFamily("celery_unreadable_events", "Events of others.", numbers.unreadable)


def _histogram(name: str, text: str, label: str, found: dict[str, Durations]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=(label,))
    for value, durations in sorted(found.items()):
        counts = accumulate(durations.counts)
        family.add_metric((value,), list(zip(ENDS, counts, strict=True)), durations.total)
    return family


def _of_queues(lengths: dict[str, QueueLength]) -> Iterator[Metric]:
    messages = GaugeMetricFamily(
        "celery_queue_messages", "Messages of all priorities, by state.", labels=("queue", "state")
    )
    waiting = GaugeMetricFamily(
        "celery_queue_waiting_messages", "Waiting messages, by priority.", labels=("queue", "priority")
    )
    for queue, length in lengths.items():
        messages.add_metric((queue, "waiting"), length["waiting"])
        messages.add_metric((queue, "unacknowledged"), length["unacknowledged"])
        for priority, count in length["by_priority"].items():
            waiting.add_metric((queue, str(priority)), count)
    yield messages
    yield waiting


def registry_of(events: TaskEvents) -> CollectorRegistry:
    """Return a registry that has these metrics and no others."""
    registry = CollectorRegistry()
    registry.register(AppCollector(events))
    return registry


def metrics_text(events: TaskEvents) -> str:
    """Return all metrics in Prometheus' text format. It asks the broker: from a coroutine, call it in a thread."""
    return generate_latest(registry_of(events)).decode()


def serve(events: TaskEvents, port: int, address: str = "127.0.0.1") -> None:
    """Serve the metrics at /metrics until Ctrl-C. Raises `OSError` if nothing can listen there."""
    server, thread = start_http_server(port, address, registry_of(events))
    try:
        threading.Event().wait()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
