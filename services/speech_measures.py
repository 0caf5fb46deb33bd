"""Measure a recording with Praat. Each function names the source of its method.

Boersma, P. (1993). Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio
    of a sampled sound. IFA Proceedings 17, 97-110.
de Jong, N. H., & Wempe, T. (2009). Praat script to detect syllable nuclei and measure speech rate
    automatically. Behavior Research Methods 41(2), 385-390.
Praat: Boersma, P., & Weenink, D., with its manual.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np
import parselmouth
from numpy.typing import NDArray
from parselmouth.praat import call

from services.speech_data import Measures, SpeechParams
from services.speech_file import Recording

# What a sample of 1 is in Praat, which takes it for one pascal: 20 log10(1 Pa / 20 micropascal).
FULL_SCALE_DB = 93.979
MIN_SOUNDING = 0.1  # seconds: a shorter sound is no speech (de Jong & Wempe 2009)
MIN_DIP = 2.0  # dB between two syllables (de Jong & Wempe 2009)
# Praat's defaults for jitter and shimmer: the shortest and longest period in seconds, how much neighbours
# may differ in period and in amplitude.
PERIODS = (0.0001, 0.02, 1.3)
AMPLITUDE = 1.6
SILENT_DB = -80.0  # dB of full scale: below, even 16 bits hold next to nothing

Begin = Callable[[], None]


@dataclass(frozen=True)
class Loudness:
    """Intensity over time: moments in seconds, values in dB of full scale, and what is silence."""

    moments: NDArray[np.float64]
    values: NDArray[np.float64]
    threshold: float

    @property
    def is_sounding(self) -> NDArray[np.bool_]:
        """Which values are louder than the threshold."""
        return self.values > self.threshold


def measure(recording: Recording, params: SpeechParams, begin: Begin) -> Measures:
    """Return the measures of a recording. `begin` is called before each of five steps."""
    sound = parselmouth.Sound(recording.samples, recording.rate)
    begin()
    pitch = sound.to_pitch(pitch_floor=params.pitch_floor, pitch_ceiling=params.pitch_ceiling)
    begin()
    loudness = loudness_of(sound, params)
    begin()
    parts = sounding_parts(loudness, params.min_pause)
    begin()
    nuclei = syllable_nuclei(loudness, parts, pitch)
    begin()
    pitches = _voiced(pitch, parts)
    quality = voice_quality(sound, pitch, params) if len(pitches) else (None, None, None)
    return _measures(loudness, parts, nuclei, pitches, quality)


def loudness_of(sound: parselmouth.Sound, params: SpeechParams) -> Loudness:
    """Return the intensity of a sound, with a threshold between speech and silence.

    The threshold is `silence_threshold` below the level that 1 % of the sound exceeds, so that one loud click
    does not turn all else into silence (de Jong & Wempe 2009).
    """
    intensity = sound.to_intensity(minimum_pitch=params.pitch_floor)
    values = intensity.values[0] - FULL_SCALE_DB
    threshold = max(float(np.percentile(values, 99)) + params.silence_threshold, SILENT_DB)
    return Loudness(intensity.xs(), values, threshold)


def sounding_parts(loudness: Loudness, min_pause: float) -> list[tuple[float, float]]:
    """Return the parts that are not silence, as their first and last moments in seconds.

    As Praat's command "To TextGrid (silences)": silences shorter than `min_pause` join the sounds beside
    them, then sounds shorter than `MIN_SOUNDING` are dropped.
    """
    moments, step = loudness.moments, float(loudness.moments[1] - loudness.moments[0])
    edges = np.flatnonzero(np.diff(np.concatenate(([0], loudness.is_sounding.astype(np.int8), [0]))))
    joined: list[tuple[float, float]] = []
    for first, after in zip(edges[::2], edges[1::2], strict=True):
        start, end = float(moments[first]) - step / 2, float(moments[after - 1]) + step / 2
        if joined and start - joined[-1][1] < min_pause:
            start = joined.pop()[0]
        joined.append((start, end))
    return [(start, end) for start, end in joined if end - start >= MIN_SOUNDING]


def syllable_nuclei(
    loudness: Loudness, parts: list[tuple[float, float]], pitch: parselmouth.Pitch
) -> list[float]:
    """Return the moments of the syllables: peaks of intensity that are voiced (de Jong & Wempe 2009).

    A peak counts if it is louder than the threshold, lies in a sounding part, has a pitch, and if before the
    next one the intensity falls by at least `MIN_DIP`.
    """
    values, moments = loudness.values, loudness.moments
    inner = (values[1:-1] > values[:-2]) & (values[1:-1] >= values[2:]) & loudness.is_sounding[1:-1]
    peaks = [int(index) for index in np.flatnonzero(inner) + 1 if _within(float(moments[index]), parts)]
    dips = [float(values[peak:following].min()) for peak, following in pairwise(peaks)]
    return [
        float(moments[peak])
        for peak, dip in zip(peaks, [*dips, -inf], strict=False)  # after the last one comes the end
        if values[peak] - dip >= MIN_DIP and not np.isnan(pitch.get_value_at_time(float(moments[peak])))
    ]


def voice_quality(
    sound: parselmouth.Sound, pitch: parselmouth.Pitch, params: SpeechParams
) -> tuple[float | None, float | None, float | None]:
    """Return jitter and shimmer (local, in percent) and the harmonics-to-noise ratio in dB.

    Jitter is the mean difference of neighbouring periods, divided by the mean period; shimmer is the same of
    amplitudes (Praat manual, "Voice 2" and "Voice 3"). They mean most in one long vowel: in speech the melody
    and the syllables add to them. The ratio is Boersma's (1993), the mean over frames that have a voice.
    """
    points = call([sound, pitch], "To PointProcess (cc)")
    jitter = call(points, "Get jitter (local)", 0, 0, *PERIODS)
    shimmer = call([sound, points], "Get shimmer (local)", 0, 0, *PERIODS, AMPLITUDE)
    ratios = sound.to_harmonicity_cc(minimum_pitch=params.pitch_floor).values
    ratios = ratios[ratios > -200]  # Praat's mark of a frame without a voice
    ratio = float(ratios.mean()) if len(ratios) else None
    return _percent(jitter), _percent(shimmer), ratio


def remarks(recording: Recording, measured: Measures) -> list[str]:
    """Return what makes the numbers doubtful, each in one sentence."""
    found = []
    if measured["pitch_median"] is None:
        found.append(
            "No voice was found: it is silence or noise, or the voice lies outside the pitch limits."
        )
    if recording.clipped > 0.001:
        found.append(
            f"{recording.clipped:.1%} of the samples are at full scale: it is clipped, and its voice quality is "
            "not that of the speaker. Record it less loud."
        )
    if recording.rate < 16_000:
        found.append("Fewer than 16,000 samples a second: of the voice quality, only changes mean something.")
    return found


def _measures(
    loudness: Loudness,
    parts: list[tuple[float, float]],
    nuclei: list[float],
    pitches: NDArray[np.float64],
    quality: tuple[float | None, float | None, float | None],
) -> Measures:
    pauses = [after[0] - before[1] for before, after in pairwise(parts)]
    seconds = parts[-1][1] - parts[0][0] if parts else 0.0
    low, median, high = np.percentile(pitches, (5, 50, 95)) if len(pitches) else (None, None, None)
    variation = float(np.std(12 * np.log2(pitches / median))) if len(pitches) else None
    loud = loudness.values[loudness.is_sounding]
    return {
        "pitch_median": _rounded(median),
        "pitch_low": _rounded(low),
        "pitch_high": _rounded(high),
        "pitch_variation": _rounded(variation),
        "intensity": _rounded(np.median(loud)) if parts else None,
        "speech_seconds": round(seconds, 3),
        "pauses": len(pauses),
        "pause_seconds": round(sum(pauses, 0.0), 3),
        "pause_share": round(sum(pauses) / seconds, 3) if parts else 0.0,
        "syllables": len(nuclei),
        "speaking_rate": round(len(nuclei) / seconds, 2) if parts else 0.0,
        "articulation_rate": round(len(nuclei) / (seconds - sum(pauses)), 2) if parts else 0.0,
        "jitter": _rounded(quality[0]),
        "shimmer": _rounded(quality[1]),
        "harmonics_to_noise": _rounded(quality[2]),
    }


def _voiced(pitch: parselmouth.Pitch, parts: list[tuple[float, float]]) -> NDArray[np.float64]:
    """Return the pitches in Hz of the frames that have one, in the sounding parts (Boersma 1993)."""
    values = pitch.selected_array["frequency"]
    inside = np.zeros(len(values), dtype=bool)
    for start, end in parts:
        inside |= (pitch.xs() >= start) & (pitch.xs() <= end)
    return values[inside & (values > 0)]


def _within(moment: float, parts: list[tuple[float, float]]) -> bool:
    return any(start <= moment <= end for start, end in parts)


def _percent(value: float) -> float | None:
    return None if np.isnan(value) else 100 * value


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)
