"""Make sample recordings: a voice of ours, computed, of which pitch, pauses, syllables and loudness are known.

A glottal wave (Klatt & Klatt 1990: the derivative of a t^2 - b t^3 while the glottis is open) passes through
four resonators, one for each formant (Klatt 1980). A syllable is a vowel that swells and fades. It sounds
like a toy, and is measured like speech.

python data/make_speech.py
"""

import array
import math
import random
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RATE = 16_000  # samples per second
OPEN = 0.6  # the part of each period in which the glottis is open
FADE = 0.015  # seconds: how quickly a syllable swells and fades beside a pause
# Centres and bandwidths of four formants in Hz, of a man: Peterson & Barney 1952, the fourth is usual.
VOWELS = {
    "a": ((730, 90), (1090, 110), (2440, 170), (3400, 250)),
    "i": ((270, 60), (2290, 100), (3010, 170), (3500, 250)),
    "u": ((300, 60), (870, 100), (2240, 170), (3400, 250)),
}


@dataclass(frozen=True)
class Part:
    """Some syllables of one length, or a pause if there are none. Pitch glides from the first to the last."""

    seconds: float
    syllables: int = 0
    pitch: tuple[float, float] = (0, 0)  # Hz, at its beginning and its end


SAMPLES: dict[str, tuple[Part, ...]] = {
    # A calm speaker: 14 syllables, two pauses between three phrases, a voice that goes up and down.
    "talk": (
        Part(1.0, 4, (110, 150)),
        Part(0.5),
        Part(1.25, 5, (150, 110)),
        Part(0.4),
        Part(1.25, 5, (130, 95)),
    ),
    # One who hurries through in one breath, and on one note: 18 syllables in 2.4 seconds.
    "hurry": (Part(2.4, 18, (180, 180)),),
    # One vowel on 220 Hz, as a doctor asks for it.
    "vowel": (Part(1.2, 1, (220, 220)),),
}
LEVEL = -23.0  # dB of full scale: the mean power (RMS) of all that is not a pause


def voice(parts: tuple[Part, ...], rate: int = RATE, level: float = LEVEL) -> list[float]:
    """Return the samples of a recording, from -1 to 1."""
    samples: list[float] = []
    sounding = 0
    for part in parts:
        length = round(part.seconds * rate)
        if part.syllables:
            samples += phrase(part, length, rate)
            sounding += length
        else:
            samples += [0.0] * length
    power = math.sqrt(sum(sample * sample for sample in samples) / sounding)
    return [sample * 10 ** (level / 20) / power for sample in samples]


def phrase(part: Part, length: int, rate: int) -> list[float]:
    """Return the samples of some syllables without a pause between them."""
    each = length // part.syllables
    names = list(VOWELS) if part.syllables > 1 else ["a"]
    sound: list[float] = []
    source = glottal_wave(part, length, rate)
    state = [[0.0, 0.0] for _ in range(4)]
    for syllable in range(part.syllables):
        here = length - (part.syllables - 1) * each if syllable == part.syllables - 1 else each
        formants = VOWELS[names[syllable % len(names)]]
        wave_of_vowel = [next(source) for _ in range(here)]
        for memory, (centre, width) in zip(state, formants, strict=True):
            resonate(wave_of_vowel, memory, centre, width, rate)
        top = max(map(abs, wave_of_vowel))
        for index, sample in enumerate(wave_of_vowel):
            sound.append(sample / top * swell(index / here, here / rate, part.syllables))
    return sound


def glottal_wave(part: Part, length: int, rate: int) -> Iterator[float]:
    """Give the flow through the glottis, differentiated, sample by sample."""
    phase = 0.0
    low, high = part.pitch
    for index in range(length):
        yield phase / OPEN * (2 - 3 * phase / OPEN) if phase < OPEN else 0.0
        phase = (phase + low * (high / low) ** (index / length) / rate) % 1


def resonate(samples: list[float], memory: list[float], centre: float, width: float, rate: int) -> None:
    """Pass `samples` through a resonator, in place (Klatt 1980, equation 1). `memory` is kept between calls."""
    if centre > 0.45 * rate:  # a telephone has no fourth formant
        return
    c = -math.exp(-2 * math.pi * width / rate)
    b = 2 * math.exp(-math.pi * width / rate) * math.cos(2 * math.pi * centre / rate)
    a = 1 - b - c
    one, two = memory
    for index, sample in enumerate(samples):
        samples[index] = a * sample + b * one + c * two
        one, two = samples[index], one
    memory[:] = one, two


def swell(moment: float, seconds: float, syllables: int) -> float:
    """Return how loud a syllable is at `moment`, 0 to 1: down to 10 % between two, and flat if it is alone."""
    if syllables == 1:
        return min(1.0, moment * seconds / FADE, (1 - moment) * seconds / FADE)
    return 0.1 + 0.9 * math.sin(math.pi * moment)


def with_noise(samples: list[float], level: float, seed: int = 1) -> list[float]:
    """Return `samples` with white noise of `level` dB of full scale, the same for the same seed."""
    rng = random.Random(seed)
    power = 10 ** (level / 20)
    return [sample + rng.gauss(0, power) for sample in samples]


def write(path: Path, samples: list[float], rate: int = RATE) -> None:
    """Write a WAV file with one channel and 16 bits a sample. Louder than full scale is clipped."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        values = (round(max(-1.0, min(1.0, sample)) * 32767) for sample in samples)
        file.writeframes(array.array("h", values).tobytes())


def main() -> None:
    """Write the samples of the course, with a little noise: no room is quite silent."""
    folder = Path(__file__).parent / "speech"
    folder.mkdir(exist_ok=True)
    for name, parts in SAMPLES.items():
        write(folder / f"{name}.wav", with_noise(voice(parts), -75))


if __name__ == "__main__":
    main()
