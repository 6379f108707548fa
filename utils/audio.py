"""Reading sound files of any kind, and telling those that are none."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import librosa
import numpy as np
import pandas as pd
import soundfile

from . import files
from .config import MelConfig

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
REMEDY = "replace the file, or remove its row from the table"
SAMPLES_PER_READ = 2**22  # of all channels, read at once: a header that promises more than is there takes little memory
SAMPLES_PER_RETRY = 2**12  # where decoding fails: all of the block in which it does is lost
SAMPLE_RATES = (1_000, 1_000_000)  # Hz; a header that says less or more is wrong, and resampling would believe it
LOUDEST = 1e6  # times full scale; beyond, the bytes are no sound, and their power overflows
MAX_DURATION = 1e6  # s; FLAC that was streamed says 2**63 samples, for not known
STREAMED = 2**31 - 2**16  # bytes or samples; a header written to a pipe says at least this, for unknown
LEAST_DECODED = 0.98  # of the samples in the header, which MP3 may only estimate
MAY_GO_ON = ("MP3", "OGG", "WAV")  # formats whose files may hold more than their header tells
MOST_LEFT = 2**12  # bytes after the last sample that is read, of whatever kind
# What libsndfile logs of a header that promises more bytes than there are, in WAV, AIFF, AU, W64 and RF64, and of Ogg.
PROMISED = re.compile(r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
NO_END_MARK = re.compile(r"^Ogg ?: .*end-of-stream", re.MULTILINE | re.IGNORECASE)


class UnreadableClip(ValueError):
    """A file that is no clip: `.reason` says why, and the sentence also names the file and the remedy."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.args[0]} {self.reason}: {REMEDY}."


def load_clip(path: str | Path, settings: MelConfig) -> np.ndarray:
    """The clip as mono float32 samples, full scale 1, at `settings.sample_rate`; ends untrimmed.

    The format is told by the content, not by the name. A file that breaks off is a clip as far as it can be decoded. A
    header that promises more than is there takes no memory for it. Of one that promises less, as an MP3 written to a
    pipe may, or the first of several files in one, the rest is not read. Raises UnreadableClip, a ValueError that names
    the file and the remedy, if it is absent, no audio, without samples, at less than 1 kHz or more than 1 MHz, or has
    samples that are not finite or over a million times full scale.
    """
    return load_clip_and_damage(path, settings)[0]


def load_clip_and_damage(path: str | Path, settings: MelConfig) -> tuple[np.ndarray, str]:
    """What `load_clip` gives, and what is wrong with the file, such as "breaks off after 0.5 of 2 s"; "" if nothing is.

    Damaged is a file that holds less than its header promises, or over 4 KB more, that cannot be decoded to its
    end, or an Ogg without its end mark. A length of 0, or of 2 GiB or 2**31 samples and more, is ignored: files written
    to a pipe have it.
    """
    samples, sample_rate, damage = _decode(path)
    if not len(samples):
        raise UnreadableClip(path, "has no samples")
    if not SAMPLE_RATES[0] <= sample_rate <= SAMPLE_RATES[1]:
        raise UnreadableClip(path, f"says that it has {sample_rate} samples a second")
    if not max(samples.max(), -samples.min()) <= LOUDEST:  # nor is NaN
        raise UnreadableClip(path, "has samples that are not finite or far beyond full scale")
    if sample_rate != settings.sample_rate:
        samples = librosa.resample(samples, orig_sr=sample_rate, target_sr=settings.sample_rate)
    return samples, damage


class _Stream(soundfile.SoundFile):
    """A sound file that is read from its start to its end."""

    def seekable(self) -> bool:
        return False  # else soundfile seeks after each read: a seam in MP3, a failure in FLAC of unknown length


def _decode(path: str | Path, samples_per_read: int = SAMPLES_PER_READ) -> tuple[np.ndarray, int, str]:
    """Mono samples as far as they can be decoded, their rate, and what `load_clip_and_damage` says of damage."""
    blocks, failure = [], None
    with (
        _named(path), open(path, "rb") as opened, _Stream(path) as by_name,
        # It tells where reading has ended, but malformed files of other formats make it write to stderr.
        (_Stream(opened) if by_name.format in MAY_GO_ON else by_name) as file,
    ):  # fmt: skip
        try:
            for block in _mono_blocks(file, samples_per_read):
                blocks.append(block)  # noqa: PERF402 (those before a failure stay)
        except soundfile.LibsndfileError as error:
            if samples_per_read > SAMPLES_PER_RETRY:
                return _decode(path, SAMPLES_PER_RETRY)
            if not blocks:
                raise
            failure = error
        # A clip of the usual length is one block.
        samples = blocks[0] if len(blocks) == 1 else np.concatenate([*blocks, np.empty(0, np.float32)])
        return samples, file.samplerate, _damage(file, len(samples), failure is not None, opened)


def _mono_blocks(file: soundfile.SoundFile, samples_per_read: int) -> Iterator[np.ndarray]:
    """The file's samples, mixed down, a block at a time, float32."""
    # The competition's format is 16 bits: scaling it here, to the same floats, halves the reading time.
    dtype, scale = ("int16", np.float32(2**-15)) if file.subtype == "PCM_16" else ("float32", np.float32(1))
    size = min(file.frames, samples_per_read // file.channels)
    while len(block := file.read(size, dtype=dtype, always_2d=True)):
        with np.errstate(over="ignore", invalid="ignore"):  # load_clip refuses what comes of these
            yield block[:, 0] * scale if block.shape[1] == 1 else (block * scale).mean(axis=1)


def _damage(file: soundfile.SoundFile, decoded: int, failed: bool, opened: BinaryIO) -> str:
    """What is wrong with a file, of which so many samples were decoded before decoding failed or ended."""
    if not decoded:
        return ""
    promised, log = file.frames, file.extra_info
    if match := PROMISED.search(log):
        bytes_promised, bytes_there = map(int, match.groups())
        promised = decoded * bytes_promised / bytes_there if bytes_there < bytes_promised < STREAMED else decoded
        failed = failed or promised > decoded
    seconds = f"after {decoded / file.samplerate:.3g}"
    if failed or decoded < LEAST_DECODED * promised < STREAMED:
        of_how_many = f" of {promised / file.samplerate:.3g}" if promised < STREAMED else ""
        return f"breaks off {seconds}{of_how_many} s"
    if _goes_on(file, opened):
        return f"goes on {seconds} s, which is all that its header tells: convert it with another program"
    return f"has no end mark {seconds} s" if NO_END_MARK.search(log) else ""


def _goes_on(file: soundfile.SoundFile, opened: BinaryIO) -> bool:
    """Whether there is more sound behind what was read of an `opened` file, rather than tags."""
    if file.format not in MAY_GO_ON or (file.format == "WAV" and "Exiting parser" not in file.extra_info):
        return False
    rest = opened.read(SAMPLES_PER_READ)  # a header that promises less takes little memory, too
    if len(rest) <= MOST_LEFT:
        return False
    if file.format == "OGG":
        return b"OggS" in rest
    if file.format == "MP3":
        return rest.startswith((b"\xff", b"ID3"))
    return not rest.lstrip(b"\0").startswith((b"APET", b"ID3", b"LIST"))


def durations(table: pd.DataFrame) -> np.ndarray:
    """Length in seconds of each clip whose header tells it, float (clips that do,); prints how many do not."""
    seconds = []
    for path in table["path"]:
        with suppress(UnreadableClip), _named(path), open(path, "rb"):
            seconds.append(soundfile.info(path).duration)
    told = np.array([length for length in seconds if length < MAX_DURATION])
    if len(told) < len(table):
        untold = f"{len(table) - len(told)} of {len(table)} clips do not tell how long they are"
        print(f"{untold}; 02_preprocessing says which cannot be read")
    return told


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Turn an error of opening or reading `path` into one that names it."""
    try:
        yield
    except (OSError, soundfile.LibsndfileError, TypeError) as error:  # TypeError: the name ends in .raw
        detail = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
        raise UnreadableClip(path, f"cannot be read as audio ({detail.rstrip('.') or 'decoding fails'})") from error


def find_sounds(folder: str | Path) -> list[Path]:
    """The .wav, .flac, .ogg and .mp3 files in `folder` and below, sorted, without hidden ones; prints how many other
    files there are.

    Raises FileNotFoundError if there is none, ValueError if a name is not UTF-8 or a folder is a link.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give the one that holds the sounds.")
    # macOS leaves a ._NAME.wav that is no sound beside each NAME.wav on other systems' disks.
    shown = [path for path in sorted(folder.rglob("*")) if "/." not in f"/{path.relative_to(folder).as_posix()}"]
    if linked := next((path for path in shown if path.is_symlink() and path.is_dir()), None):
        raise ValueError(f"{linked} is a link to a folder, which is not followed: put the folder itself there.")
    shown = [path for path in shown if path.is_file()]
    sounds = [path for path in shown if path.suffix.lower() in SUFFIXES]
    if not sounds:
        raise FileNotFoundError(f"There is no sound in {folder}: put {', '.join(SUFFIXES)} files there.")
    files.refuse_undecodable([str(file.relative_to(folder)) for file in sounds], folder)
    others = [path.name for path in shown if path.suffix.lower() not in SUFFIXES]
    if others:
        print(f"{folder}: files that are not {', '.join(SUFFIXES)}: {len(others)} passed over, such as {others[0]}")
    return sounds
