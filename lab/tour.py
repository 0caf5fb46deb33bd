"""The guided tour: tasks, canvases and real work, on a real broker and real workers.

Everything that it prints was computed in this run.
"""

from celery import chord, group

from lab.mail_server import received
from lab.story import Story
from services.stations import sources
from settings import settings
from tasks.advanced_tasks import fetch_data, mean_temperature, process_item, retry_with_backoff, summarize
from tasks.basic_tasks import add, describe_request
from tasks.realworld_tasks import generate_report, import_data, mail_report, process_image

ENDING = """\
What to type next:
  ./learn example basic       more of this: states, progress, failure
  ./learn example advanced    canvases, retries, priorities, limits
  ./learn example realworld   mail, images, tables, reports, pipelines
  ./learn notebooks           the walkthrough, in JupyterLab
  ./learn up                  a broker and a worker for your own experiments
  ./learn --help              everything else
Then write a task of your own: see "Your own first task" in README.md."""

story = Story(__doc__, queues=["basic", "advanced", "realworld"], ending=ENDING)


@story.step(expect=9)
def task() -> int | float:
    """A task.

    A task is a function that runs somewhere else. delay() sends a message to the broker.
    A worker, another process, takes it and stores the result. get() reads the result.
    """
    return add.delay(4, 5).get(timeout=10)


@story.step(expect=lambda value: value["queue"] == "basic")
def request() -> dict[str, object]:
    """It ran in another process.

    The task tells its id, its worker and its queue.
    """
    return describe_request.delay().get(timeout=10)


@story.step(expect=lambda value: value["source"] == "north")
def run_chain() -> dict[str, object]:
    """A chain: step by step.

    The second step gets what the first gave back: read a station's file, then describe it.
    """
    flow = fetch_data.s("north") | process_item.s()
    return flow.delay().get(timeout=10)


@story.step(expect=lambda value: len(value) == len(sources()))
def run_group() -> list[float]:
    """A group: all at once.

    The same task for each station, at the same time in all pool children of the worker.
    """
    flow = group(mean_temperature.s(source) for source in sources())
    return flow.delay().get(timeout=10)


@story.step(expect=lambda value: value["stations"] == len(sources()))
def run_chord() -> dict[str, object]:
    """A chord: all at once, then one.

    When the whole group has run, one more task gets all its results.
    """
    header = [fetch_data.s(source) | process_item.s() for source in sources()]
    return chord(header, summarize.s()).delay().get(timeout=10)


@story.step(expect="the service answered at attempt 3")
def run_retry() -> str:
    """A retry: fail, wait, try again.

    This simulated service is away for two tries. The task waits longer each time.
    """
    return retry_with_backoff.delay(failures=2, base_seconds=0.5).get(timeout=10)


@story.step(expect=lambda value: value["width"] == 320)
def run_image() -> dict[str, object]:
    """A real image.

    A photo, made smaller and sharper, in the output folder data/out.
    """
    operations = [{"type": "thumbnail", "size": 320}, {"type": "filter", "name": "sharpen"}]
    return process_image.delay("images/photo1.jpg", operations).get(timeout=30)


@story.step(expect=lambda value: (value["imported"], value["rejected"]) == (483, 17))
def run_import() -> dict[str, object]:
    """A real import.

    500 orders from a CSV file into a database. The bad rows go to a file, each with its reason.
    """
    return import_data.delay("orders.csv").get(timeout=60)


@story.step(expect=lambda value: "Sales 2026-05" in value)
def run_report() -> str:
    """A real report, and a real mail with it.

    Read the database, draw charts, write HTML and PDF, and mail the PDF: a chain of two tasks.
    The mail server belongs to the sandbox. It keeps what it receives.
    """
    flow = generate_report.s("2026-05") | mail_report.s("boss@example.com")
    sent = flow.delay().get(timeout=60)
    mail = next(
        mail for mail in received(settings.sandbox_folder) if mail["Message-ID"] == sent["message_id"]
    )
    attached = [part.get_filename() for part in mail.iter_attachments()]
    return f"to {mail['To']}: {mail['Subject']}, with {attached}"
