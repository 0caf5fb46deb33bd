"""What goes into an analysis of speech, and what comes out of it: no code of Praat is needed to know that."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from services.error_texts import shown


class SpeechParams(BaseModel):
    """How to measure. The defaults suit most voices; for one voice, narrower limits of its pitch are better.

    `pitch_floor`, `pitch_ceiling`: Hz; what lies outside is no pitch. Praat's own defaults.
    `silence_threshold`: dB below the loudest speech; what is softer is silence. `min_pause`: seconds; a
    shorter silence is part of the speech. These two defaults are those of de Jong & Wempe 2009.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True)

    pitch_floor: Annotated[float, Field(ge=40, le=300)] = 75.0
    pitch_ceiling: Annotated[float, Field(ge=150, le=1000)] = 500.0
    silence_threshold: Annotated[float, Field(ge=-60, le=-10)] = -25.0
    min_pause: Annotated[float, Field(ge=0.1, le=5)] = 0.3

    @model_validator(mode="before")
    @classmethod
    def _has_only_known_names(cls, given: object) -> object:
        names = cls.model_fields
        for name in given.keys() - names.keys() if isinstance(given, dict) else ():
            raise ValueError(f"there is no parameter {shown(name)}; there are {', '.join(names)}")
        return given

    @model_validator(mode="after")
    def _leaves_room_for_a_voice(self) -> Self:
        if self.pitch_ceiling < 2 * self.pitch_floor:
            raise ValueError(
                f"pitch_ceiling={self.pitch_ceiling:g}: must be at least twice pitch_floor, "
                f"{self.pitch_floor:g}; a voice that speaks moves about an octave"
            )
        return self


class Measures(TypedDict):
    """What Praat measures. What needs a voice is None where none was found. Sources: speech_measures.py."""

    pitch_median: float | None  # Hz
    pitch_low: float | None  # Hz: 5 % of the voice is lower
    pitch_high: float | None  # Hz: 5 % of the voice is higher
    pitch_variation: float | None  # semitones: the standard deviation
    intensity: float | None  # dB of full scale, the median of the sounding parts
    speech_seconds: float  # from the first sound to the last
    pauses: int  # between the first sound and the last
    pause_seconds: float  # all of them together
    pause_share: float  # of speech_seconds, 0 to 1
    syllables: int
    speaking_rate: float  # syllables in a second of speech_seconds
    articulation_rate: float  # the same without the pauses
    jitter: float | None  # local, in percent
    shimmer: float | None  # local, in percent
    harmonics_to_noise: float | None  # dB


class Scores(TypedDict):
    """The parts of the overall score, each 0 to 1. Their ranges: speech_score.py."""

    rate: float
    pauses: float
    melody: float
    voice: float


class SpeechResult(Measures):
    """The result of an analysis."""

    duration: float  # seconds of the file
    sample_rate: int  # Hz
    channels: int  # their mean was measured
    clipped: float  # part of the samples at full scale, 0 to 1
    scores: Scores
    overall_score: float  # 0 to 100; speech_score.py says what it means, and what it does not
    remarks: list[str]  # what makes numbers above doubtful
