"""Read a recording: nothing is decoded before it is known where it lies, what it is, and how long.

A recording is read in blocks, and its channels become one as they come. So memory is bounded by
`MAX_FRAMES`, whatever a file holds or says that it holds. libsndfile decodes it, and Praat never sees a file
from outside: it gets numbers.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from services.error_texts import shown
from services.paths import inside, what_is_there
from settings import settings

SUFFIXES = (".wav", ".flac")
MIN_SECONDS, MAX_SECONDS = 0.5, 600.0
# Ten minutes at 48,000 samples a second, in 8 bytes each: 240 MB, which Praat copies once.
MAX_FRAMES = 30_000_000
MIN_RATE, MAX_RATE = 8_000, 192_000  # Hz: a telephone's, and the highest that studios use
MAX_CHANNELS = 8
BLOCK = 65_536  # frames that are decoded at a time
FULL_SCALE = 0.999  # what is at least as loud is clipped; 16 bits end at 0.99997
# Of what libsndfile decodes: plain numbers, and the two codes of telephones.
KINDS = {"PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}


class Refused(ValueError):
    """What is wrong with a recording, and the remedy. Who catches it says which."""


@dataclass(frozen=True)
class Recording:
    """A recording as one channel, from -1 to 1. `clipped` is the part of its samples at full scale."""

    samples: NDArray[np.float64]
    rate: int
    channels: int
    clipped: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate


def read(path: str) -> Recording:
    """Return the recording at `path` in the data folder. Raises `ValueError` that says what is wrong with it."""
    try:
        return _read(inside(settings.data_dir, path))
    except Refused as error:
        raise ValueError(f"path={shown(path)}: {error}") from None


def _read(path: Path) -> Recording:
    if not path.is_file():
        there = what_is_there(settings.data_dir, path, SUFFIXES)
        raise Refused(f"no such file in {settings.data_dir}; {there}; copy the recording there first")
    with path.open("rb") as file:
        _check_beginning(file)
        file.seek(0)
        try:
            with soundfile.SoundFile(file) as sound:
                _check(sound)
                return _decoded(sound)
        except soundfile.LibsndfileError as error:
            raise Refused(
                f"broken ({error.error_string.rstrip('.')}); save it again as WAV or FLAC"
            ) from None


def _check_beginning(file: BinaryIO) -> None:
    """Raise `Refused` if a file is no WAV or FLAC, or a WAV that ends before its header says."""
    beginning = file.read(12)
    if not beginning:
        raise Refused("empty: the file has no bytes; record it again")
    if beginning[:4] == b"RIFF" and beginning[8:] == b"WAVE":
        _check_chunks(file)
    elif beginning[:4] != b"fLaC":
        raise Refused("not a WAV or FLAC file; save the recording as one of them, whatever its name is")


def _check_chunks(file: BinaryIO) -> None:
    # libsndfile plays what there is of a cut file. Half a recording would get a whole score.
    size = file.seek(0, 2)
    at = 12
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"data":
            if at + 8 + length > size:
                raise Refused(
                    f"cut off: its header says {length:,} bytes of sound, and {size - at - 8:,} are there; "
                    "copy it again"
                )
            return
        at += 8 + length + length % 2  # chunks begin at even bytes
    raise Refused("broken (a WAV without sound); save it again")


def _check(sound: soundfile.SoundFile) -> None:
    """Raise `Refused` if an opened file is not fit for an analysis. Only its header has been read."""
    if sound.subtype not in KINDS:
        raise Refused(f"its sound is stored as {sound.subtype}; save it as PCM or float")
    if not MIN_RATE <= sound.samplerate <= MAX_RATE:
        raise Refused(f"{sound.samplerate:,} samples a second; {MIN_RATE:,} to {MAX_RATE:,} are measured")
    if sound.channels > MAX_CHANNELS:
        raise Refused(f"{sound.channels} channels; at most {MAX_CHANNELS} are read")
    seconds = sound.frames / sound.samplerate
    if seconds < MIN_SECONDS:
        raise Refused(f"{seconds:.2f} seconds; at least {MIN_SECONDS:g} are needed to measure anything")
    if seconds > MAX_SECONDS or sound.frames > MAX_FRAMES:
        raise Refused(
            f"{sound.frames:,} samples, {seconds:,.0f} seconds; at most {MAX_FRAMES:,} samples and "
            f"{MAX_SECONDS:,.0f} seconds are analysed at once; cut it into parts"
        )


def _decoded(sound: soundfile.SoundFile) -> Recording:
    samples = np.empty(sound.frames)
    done, at_full_scale = 0, 0
    for block in sound.blocks(BLOCK, dtype="float64", always_2d=True):
        if not np.isfinite(block).all():
            raise Refused("broken: some samples are no numbers (NaN or infinite); save it again")
        samples[done : done + len(block)] = block.mean(axis=1)
        at_full_scale += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        done += len(block)
    if done < sound.frames:
        raise Refused(
            f"cut off: its header says {sound.frames:,} samples, and {done:,} are there; copy it again"
        )
    if np.abs(samples).max() > 1e6:
        raise Refused("louder than a million times full scale: no sound; save it again")
    return Recording(samples, sound.samplerate, sound.channels, at_full_scale / (done * sound.channels))
