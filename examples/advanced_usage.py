"""Advanced usage: chains, groups, chords, retries, priorities, limits.

Brings its own broker and worker up if none are there, and takes them down again.
"""

import json
from operator import itemgetter
from pathlib import Path

from celery import chain, chord, group

from celery_app import app
from lab.serving import LoneWorker
from lab.story import Story
from services.failures import failures_of
from services.invoices import forget_charges
from services.stations import sources
from tasks.advanced_tasks import (
    autoretry_task,
    bulk_publish,
    fetch_data,
    idempotent_task,
    mean_temperature,
    monitored_task,
    prioritized_task,
    process_item,
    rate_limited_task,
    report_failure,
    retry_with_backoff,
    robust_task,
    save_result,
    summarize,
    time_limited_task,
)
from tasks.basic_tasks import add, greet

story = Story(__doc__, queues=["basic", "advanced"])


@story.step(expect=lambda value: value["source"] == "north")
def run_chain() -> dict[str, object]:
    """Chain: each step gets what the step before gave back.

    Three tasks, one after the other: read a station's file, describe it, save the summary.
    `|` makes a chain of signatures. A signature is a task with its arguments, not yet sent.
    """
    flow = fetch_data.s("north") | process_item.s() | save_result.s()
    path = flow.delay().get(timeout=10)
    return json.loads(Path(path).read_text())


@story.step(expect=lambda value: len(value) == len(sources()))
def run_group() -> list[float]:
    """Group: the same step for many, at the same time.

    All members are sent at once. The results come back in the order of the group.
    """
    flow = group(mean_temperature.s(source) for source in sources())
    return flow.delay().get(timeout=10)


@story.step(expect=lambda value: value["stations"] == len(sources()))
def run_chord() -> dict[str, object]:
    """Chord: a group, then one task with all its results.

    The group is the header, the last task is the body. The body runs when the whole header has run.
    Each header member here is a chain of two steps.
    """
    header = [fetch_data.s(source) | process_item.s() for source in sources()]
    return chord(header, summarize.s()).delay().get(timeout=10)


@story.step(expect=lambda value: len(value["reported"]) == 1)
def run_failing_chord() -> dict[str, object]:
    """Chord with a failure: the body never runs.

    One header member fails. The body fails too, without running, and its error callback runs once.
    propagate=False gives the error back as a value.
    """
    header = [fetch_data.s("north") | process_item.s(), fetch_data.s("atlantis") | process_item.s()]
    result = chord(header, summarize.s().on_error(report_failure.s())).delay()
    error = result.get(timeout=10, propagate=False)
    return {"state": result.state, "error": str(error), "reported": failures_of(result.id)}


@story.step(expect=lambda value: value.startswith("Hello, "))
def run_nested() -> str:
    """Nested: a chord inside a chain.

    A canvas may hold other canvases. Here the chord's result feeds one more task.
    si() makes an immutable signature: it does not take the result of the step before.
    """
    header = [fetch_data.s(source) | process_item.s() for source in sources()]
    flow = chain(chord(header, summarize.s()), greet.si("whoever reads the report"))
    return flow.delay().get(timeout=10)


@story.step(expect=lambda value: len(value) == len(sources()) / 2)
def run_chunks() -> list[list[float]]:
    """Chunks and starmap: fewer messages for small work.

    A message per item costs more than the item. chunks() puts two items into each message.
    """
    arguments = [(source,) for source in sources()]
    return mean_temperature.chunks(arguments, 2).apply_async().get(timeout=10)


@story.step(expect=lambda value: len(value) == len(sources()))
def run_starmap() -> list[float]:
    """Starmap: one message for all.

    One task works through all items, one after the other.
    """
    arguments = [(source,) for source in sources()]
    return mean_temperature.starmap(arguments).apply_async().get(timeout=10)


@story.step(expect=list(range(0, 200, 2)))
def run_bulk() -> list[int]:
    """Publish many messages in one round trip.

    A batch of messages goes to the broker in one go.
    """
    results = bulk_publish(add, [(number, number) for number in range(100)])
    return [result.get(timeout=10) for result in results]


@story.step(expect="the service answered at attempt 3")
def run_retry() -> str:
    """Retry with backoff.

    The simulated service is away for two tries. The task waits 0.2 s, then 0.4 s, then it succeeds.
    """
    return retry_with_backoff.delay(failures=2, base_seconds=0.2).get(timeout=10)


@story.step(expect="the service answered at attempt 2")
def run_autoretry() -> str:
    """Retry by declaration.

    autoretry_for, retry_backoff and retry_jitter on the task do the same, without code in the body.
    """
    return autoretry_task.delay(failures=1).get(timeout=10)


@story.step(expect=lambda value: "refuses the data (attempt 1" in value)
def run_robust() -> str:
    """What not to retry.

    Bad data stays bad: this task retries connection errors, and fails at once on data errors.
    The service refuses the data of the first attempt, so there is no second one.
    """
    result = robust_task.delay(failures=1, error="data")
    try:
        return result.get(timeout=10)
    except ValueError as error:
        return f"{result.state}: {error}"


@story.step(expect=["charged", "charged before"])
def run_idempotent() -> list[str]:
    """Run twice, charged once.

    A message may be delivered twice. An idempotent task may run twice: its effect comes once.
    """
    forget_charges()
    return [idempotent_task.delay("INV-1001").get(timeout=10) for _ in range(2)]


@story.step(expect=["p0", "p3", "p6", "p9"])
def run_priorities() -> list[str]:
    """Priorities: on Redis 0 is served first.

    Four tasks wait in the queue before its worker starts. It has one pool child: two would race.
    """
    alone = LoneWorker(story.sandbox)
    waiting = [
        prioritized_task.apply_async(args=[f"p{p}"], queue=alone.queue, priority=p) for p in (9, 6, 3, 0)
    ]
    with alone:
        values = [result.get(timeout=10) for result in waiting]
    return [value["label"] for value in sorted(values, key=itemgetter("started"))]


@story.step(expect="stopped after 1 s of 3 s")
def run_time_limit() -> str:
    """Time limit.

    After its soft time limit the task gets an exception. It can tidy up and give back what it has.
    """
    return time_limited_task.delay(3).get(timeout=10)


@story.step(expect=lambda value: value > 0.9)
def run_rate_limit() -> float:
    """Rate limit: five per second for each worker.

    Seven tasks with the limit 5/s: the seconds from the first start to the last.
    """
    results = [rate_limited_task.delay(number) for number in range(7)]
    started = [result.get(timeout=10) for result in results]
    return round(max(started) - min(started), 1)


@story.step(expect=lambda value: value["squares"] == [1, 4, 9] and value["items"] == 3)
def run_monitored() -> dict[str, object]:
    """Measure in the return value.

    Duration and count travel in the result.
    """
    return monitored_task.delay([1, 2, 3]).get(timeout=10)


@story.step(expect="tasks.basic_tasks.add")
def look_up() -> str | None:
    """Look a task up by its id.

    A task id is enough to find the result, from any program. result_extended keeps the name with it.
    """
    task_id = add.delay(1, 2).id
    result = app.AsyncResult(task_id)
    result.get(timeout=10)
    return result.name


if __name__ == "__main__":
    story.main()
