"""The score of a recording, 0 to 100: what it is made of, and what it does not say.

    overall_score = 100 x the mean of four parts, each from 0 to 1

Each part is 1 in a range that listeners find easy, and falls in a straight line to 0 on both sides.

This is the score of a course, to have something to show. The ranges were chosen for this course, for a
prepared talk; the literature gives their order of magnitude, and no study stands behind the equal weights.
It compares recordings of one speaker with one microphone. It says nothing about anybody's health, and
nothing about what was said. Noise, echo and a compressing microphone change it, too.
"""

from dataclasses import dataclass

from services.speech_data import Measures, Scores


@dataclass(frozen=True)
class Range:
    """Full from `low` to `high`, nothing at `zero_low` and below, and at `zero_high` and above."""

    zero_low: float
    low: float
    high: float
    zero_high: float

    def part(self, value: float) -> float:
        """Return the part for a value, 0 to 1."""
        rise = (value - self.zero_low) / (self.low - self.zero_low)
        fall = (self.zero_high - value) / (self.zero_high - self.high)
        return max(0.0, min(1.0, rise, fall))


# Which measure makes a part, and its range.
PARTS: dict[str, tuple[str, Range]] = {
    # Syllables a second with pauses. De Jong & Wempe 2009 report about 2 to 5 for speakers of Dutch.
    "rate": ("speaking_rate", Range(1.0, 2.5, 5.0, 7.0)),
    # Goldman-Eisler 1968 found pauses to be 4 to 54 % of the time of speaking.
    "pauses": ("pause_share", Range(-1.0, 0.04, 0.35, 0.7)),
    # Semitones. Hincks 2005 takes the variation of pitch as the measure of a lively talk.
    "melody": ("pitch_variation", Range(0.0, 2.0, 5.0, 10.0)),
    # dB. Praat's manual, "Voice 4": about 20 for an [a] of a healthy speaker; speech has less.
    "voice": ("harmonics_to_noise", Range(0.0, 15.0, 100.0, 200.0)),
}


def score(measured: Measures) -> tuple[Scores, float]:
    """Return the parts and the overall score of a recording. Without a voice: 0."""
    parts = {name: 0.0 for name in PARTS}
    if measured["pitch_median"] is not None:
        for name, (measure, good) in PARTS.items():
            value = measured[measure]
            parts[name] = round(good.part(value), 3) if isinstance(value, int | float) else 0.0
    scores = Scores(rate=parts["rate"], pauses=parts["pauses"], melody=parts["melody"], voice=parts["voice"])
    return scores, round(100 * sum(parts.values()) / len(parts), 1)
