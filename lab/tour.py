"""The guided tour: a task, a chain, a group, a chord and a retry, on a real broker and real workers.

Everything that it prints was computed in this run.
"""

from celery import chord, group

from lab.story import Story
from services.stations import sources
from tasks.advanced_tasks import fetch_data, mean_temperature, process_item, retry_with_backoff, summarize
from tasks.basic_tasks import add, describe_request

ENDING = """\
What to type next:
  ./learn example basic       more of this: states, progress, failure (examples/basic_usage.py)
  ./learn example advanced    canvases, retries, priorities, limits (examples/advanced_usage.py)
  ./learn notebooks           the walkthrough, in JupyterLab
  ./learn up                  keep a broker and a worker running for your own experiments
  ./learn --help              everything else"""

story = Story(__doc__, queues=["basic", "advanced"], ending=ENDING)


@story.step("A task", expect=9)
def task() -> int | float:
    """A task is a function that runs somewhere else. delay() sends a message to the broker.
    A worker, another process, takes it and stores the result. get() reads the result."""
    return add.delay(4, 5).get(timeout=10)


@story.step("It ran in another process", expect=lambda value: value["queue"] == "basic")
def request() -> dict[str, object]:
    """The task tells its id, its worker and its queue."""
    return describe_request.delay().get(timeout=10)


@story.step("A chain: step by step", expect=lambda value: value["source"] == "north")
def run_chain() -> dict[str, object]:
    """The second step gets what the first gave back: read a station's file, then describe it."""
    flow = fetch_data.s("north") | process_item.s()
    return flow.delay().get(timeout=10)


@story.step("A group: all at once", expect=lambda means: len(means) == len(sources()))
def run_group() -> list[float]:
    """The same task for each station, on all slots of the worker."""
    flow = group(mean_temperature.s(source) for source in sources())
    return flow.delay().get(timeout=10)


@story.step("A chord: all at once, then one", expect=lambda value: value["stations"] == len(sources()))
def run_chord() -> dict[str, object]:
    """When the whole group has run, one more task gets all its results."""
    header = [fetch_data.s(source) | process_item.s() for source in sources()]
    return chord(header, summarize.s()).delay().get(timeout=10)


@story.step("A retry: fail, wait, try again", expect="the service answered at attempt 3")
def run_retry() -> str:
    """This simulated service is away for two tries. The task waits longer each time."""
    return retry_with_backoff.delay(failures=2, base_seconds=0.5).get(timeout=10)
