"""Reading sound files of any kind, and telling those that are none."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import soundfile

from .config import MelConfig

REMEDY = "replace the file, or remove its row from the table"
SAMPLES_PER_READ = 2**22  # samples of all channels read at once: a head that promises more than the file has then costs little memory
SAMPLE_RATES = (1_000, 1_000_000)  # Hz; a head that says less or more is wrong, and resampling would believe it
LOUDEST = 1e6  # times full scale; beyond, the bytes are no sound, and their power overflows
MAX_DURATION = 1e6  # s; FLAC that was streamed says 2**63 samples, for not known


class UnreadableClip(ValueError):
    """A file that is no clip: `.reason` says why, and the sentence also names the file and the remedy."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.args[0]} {self.reason}: {REMEDY}."


def load_clip(path: str | Path, settings: MelConfig) -> np.ndarray:
    """The clip as mono float32 samples, full scale 1, at `settings.sample_rate`; ends untrimmed.

    The format is told by the content, not by the name. A file that breaks off is a shorter clip where its format lets one read as far as
    it goes (WAV, MP3), and unreadable where it does not (FLAC, Ogg). A head that promises more than is there takes no memory for it.
    Raises UnreadableClip, a ValueError that names the file and the remedy, if it is absent, no audio, without samples, at less than 1 kHz
    or more than 1 MHz, or has samples that are not finite or over a million times full scale.
    """
    with _named(path), open(path, "rb"), _Stream(path) as file:  # open() knows why, where libsndfile says "System error"
        sample_rate = file.samplerate
        blocks = list(_mono_blocks(file))
    if not blocks:
        raise UnreadableClip(path, "has no samples")
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)  # a clip of the usual length is one block
    if not SAMPLE_RATES[0] <= sample_rate <= SAMPLE_RATES[1]:
        raise UnreadableClip(path, f"says that it has {sample_rate} samples a second")
    if not max(samples.max(), -samples.min()) <= LOUDEST:  # nor is NaN
        raise UnreadableClip(path, "has samples that are not finite or far beyond full scale")
    if sample_rate != settings.sample_rate:
        samples = librosa.resample(samples, orig_sr=sample_rate, target_sr=settings.sample_rate)
    return samples


class _Stream(soundfile.SoundFile):
    """A sound file that is read from its start to its end."""

    def seekable(self) -> bool:
        return False  # or else soundfile seeks after each read, which makes a seam in MP3 and fails where FLAC does not tell its length


def _mono_blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """The file's samples, mixed down, a block at a time, float32."""
    # The competition's format is 16 bits: scaling it here, to the same floats, halves the reading time.
    dtype, scale = ("int16", np.float32(2**-15)) if file.subtype == "PCM_16" else ("float32", np.float32(1))
    while len(block := file.read(min(file.frames, SAMPLES_PER_READ // file.channels), dtype=dtype, always_2d=True)):
        with np.errstate(over="ignore", invalid="ignore"):  # load_clip refuses what comes of these
            yield block[:, 0] * scale if block.shape[1] == 1 else (block * scale).mean(axis=1)


def durations(table: pd.DataFrame) -> np.ndarray:
    """Length in seconds of each clip that tells it in the head of its file, float (clips that do,); says how many do not."""
    seconds = []
    for path in table["path"]:
        with suppress(UnreadableClip), _named(path), open(path, "rb"):
            seconds.append(soundfile.info(path).duration)
    told = np.array([length for length in seconds if length < MAX_DURATION])
    if len(told) < len(table):
        print(f"{len(table) - len(told)} of {len(table)} clips do not tell how long they are; 02_preprocessing says which cannot be read")
    return told


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Turn an error of opening or reading `path` into one that names it."""
    try:
        yield
    except (OSError, soundfile.LibsndfileError, TypeError) as error:  # TypeError: the name ends in .raw
        detail = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
        raise UnreadableClip(path, f"cannot be read as audio ({detail.rstrip('.')})") from error
