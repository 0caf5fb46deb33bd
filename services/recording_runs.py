"""Analyse the recording of a task record: the steps go to whoever follows, and the result into the row."""

from services.speech import analyze
from services.speech_data import SpeechParams, SpeechResult
from services.task_runs import Cancelled, Run, heartbeats
from services.token_stream import RedisStreamPublisher


def analyze_run(run: Run, path: str, stream: RedisStreamPublisher) -> SpeechResult | None:
    """Analyse the recording at `path` for `run`, and write what came of it into its row.

    Return None if it was cancelled. Raises `ValueError` for what is no recording, after the row says so, and
    `ClaimLost` if another worker has the row now.
    """

    def report(step: str, done: int, total: int) -> None:
        percent = 100 * done // total
        run.report(percent, step)
        stream.publish("progress", percent=percent, step=step)

    stream.publish("restart")
    stream.publish("status", status="processing")
    try:
        with heartbeats(run):
            result = analyze(path, SpeechParams(), report)
    except Cancelled:
        run.cancelled()
        stream.publish("end", status="cancelled")
        return None
    except Exception as error:
        run.fail(str(error) or type(error).__name__)
        stream.publish("end", status="failed")
        raise
    run.complete(result)
    stream.publish("end", status="completed")
    return result
