"""Analyse recorded speech: read a WAV or FLAC file, measure it with Praat, and give it a score.

What to learn here: a long job says which step it is at, refuses what it cannot handle before it begins, and
is told how to work by checked parameters. Reading is in speech_file.py, measuring in speech_measures.py,
and what the score means in speech_score.py. Praat and its helpers are optional: group `audio` in
pyproject.toml.
"""

from collections.abc import Callable

from services.speech_data import SpeechParams, SpeechResult
from services.speech_score import score

Progress = Callable[[str, int, int], None]  # the step that begins, how many are done, and of how many

STEPS = ("reading the file", "pitch", "intensity", "pauses", "syllables", "voice quality", "score")
INSTALL = "run `./learn audio` once, or `uv sync --inexact --group audio`"


def analyze(
    path: str, params: SpeechParams | None = None, on_progress: Progress | None = None
) -> SpeechResult:
    """Analyse the recording at `path` in the data folder. `on_progress` is called before each step.

    Raises `ValueError` for a file that is missing, outside, no WAV or FLAC, broken, empty, too long or too
    short, and `ModuleNotFoundError` that says what to install if Praat is not there.
    """
    try:
        from services import speech_file, speech_measures  # late: they need the optional group
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"The analysis of speech needs the package {error.name!r}: {INSTALL}."
        ) from error
    params = params or SpeechParams()
    steps = iter(enumerate(STEPS))

    def begin() -> None:
        done, step = next(steps)
        if on_progress:
            on_progress(step, done, len(STEPS))

    begin()
    recording = speech_file.read(path)
    measured = speech_measures.measure(recording, params, begin)
    begin()
    scores, overall_score = score(measured)
    return {
        "duration": round(recording.seconds, 3),
        "sample_rate": recording.rate,
        "channels": recording.channels,
        "clipped": round(recording.clipped, 5),
        **measured,
        "scores": scores,
        "overall_score": overall_score,
        "remarks": speech_measures.remarks(recording, measured),
    }
