"""Basic usage: send a task, wait for it, follow it, see it fail.

Brings its own broker and worker up if none are there, and takes them down again.
"""

import time

from celery_app import app
from lab.story import Story
from tasks.basic_tasks import (
    add,
    count_words,
    describe_request,
    greet,
    logged_task,
    multiply,
    simple_calculation,
    task_with_progress,
)

story = Story(__doc__, queues=["basic"])


@story.step(expect=9)
def first_task() -> int | float:
    """Send a task and wait for its result.

    delay() puts a message on the queue. A worker takes it and runs the function.
    get() waits for the result. Always give it a timeout: without a worker it waits for ever.
    """
    result = add.delay(4, 5)
    return result.get(timeout=10)


@story.step(expect=["Hello, Ada!", "Hello, Grace!", 42])
def send_then_wait() -> list[object]:
    """Send first, wait later.

    The three tasks run while this program goes on. It waits only when it needs the results.
    """
    sent = [greet.delay("Ada"), greet.delay("Grace"), multiply.delay(6, 7)]
    return [result.get(timeout=10) for result in sent]


@story.step(expect={"words": 4, "different": 3, "top": {"to": 2, "be": 1, "do": 1}})
def with_options() -> dict[str, object]:
    """Send with options.

    apply_async() is delay() with options. This message may wait 60 seconds in the queue, no longer.
    """
    result = count_words.apply_async(args=["to be to do"], kwargs={}, expires=60)
    return result.get(timeout=10)


@story.step(expect=lambda value: value["queue"] == "basic")
def request() -> dict[str, object]:
    """What a task knows about itself.

    A task with bind=True can read its own request: id, try number, queue, worker.
    """
    return describe_request.delay().get(timeout=10)


@story.step(expect=("simple_calculation", 2.5))
def explicit_name() -> tuple[str, float]:
    """An explicit name.

    This task has a name of its own choice. Its queue still follows from its module.
    """
    return simple_calculation.name, simple_calculation.delay(5, 2, "divide").get(timeout=10)


@story.step(expect=lambda value: value[-1] == "SUCCESS" and any("PROGRESS" in line for line in value))
def follow() -> list[str]:
    """Follow a long task.

    While it runs, the task stores how far it is. Whoever has the task id can read it.
    Its items are simulated: each takes 0.2 seconds.
    """
    result = task_with_progress.delay(total=5, seconds_per_item=0.2)
    seen: list[str] = []
    while not result.ready():
        info = result.info  # what update_state() has stored, or None before that
        seen.append(f"PROGRESS {info['percent']} %" if info and "percent" in info else result.state)
        time.sleep(0.02)
    return list(dict.fromkeys([*seen, result.state]))  # each once


@story.step(expect=lambda value: "operation='power'" in value)
def failure() -> str:
    """A task that fails.

    The error travels back. get() raises it here, with the text that it had in the worker.
    """
    result = simple_calculation.delay(2, 8, "power")
    try:
        return str(result.get(timeout=10))
    except ValueError as error:
        return f"{result.state}: {error}"


@story.step(expect="PENDING")
def unknown_id() -> str:
    """PENDING means unknown.

    Nobody has sent a task with this id. Celery cannot know that, so it says PENDING.
    """
    return app.AsyncResult("no-such-id").state


@story.step(expect="look for this line in the log of the worker")
def log() -> str:
    """A line in the worker's log.

    In the log each line of a task carries the task's name and id.
    """
    return logged_task.delay("look for this line in the log of the worker").get(timeout=10)


if __name__ == "__main__":
    story.main()
