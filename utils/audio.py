"""Read sound files of any format, and detect unreadable and damaged ones."""

import math
import os
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
SAMPLES_PER_READ = 2**22  # of all channels, per read: a header that overstates the length costs little memory
SAMPLES_PER_RETRY = 2**12  # per read after a decoding error, which loses the whole block
SAMPLE_RATES = (1_000, 1_000_000)  # Hz; a header that states less or more is wrong, and resampling would trust it
LOUDEST = 1e6  # times full scale; louder bytes are not audio, and their power overflows
MAX_DURATION = 1e6  # s; streamed FLAC declares 2**63 samples, meaning unknown
STREAMED = 2**31 - 2**16  # bytes or samples; a header written to a pipe declares at least this, meaning unknown
PREROLL = 2**15  # samples decoded before a part: a frame of MP3 needs bits of those before it
LEAST_DECODED = 0.98  # of the samples in the header, which MP3 may only estimate
MAY_GO_ON = ("MP3", "OGG", "WAV")  # formats whose files may hold more than their header declares
MOST_LEFT = 2**12  # bytes after the last decoded sample, of any kind
# What libsndfile logs if a WAV, AIFF, AU, W64 or RF64 header declares too many bytes, or an Ogg file has no end mark.
PROMISED = re.compile(r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
NO_END_MARK = re.compile(r"^Ogg ?: .*end-of-stream", re.MULTILINE | re.IGNORECASE)


class UnreadableClip(ValueError):
    """Raised if a file cannot be used as a clip: `.reason` says why, and the message adds the file and the remedy."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.args[0]} {self.reason}: {REMEDY}."


def load_clip(path: str | Path, settings: MelConfig) -> np.ndarray:
    """Load a clip as mono float32 samples, full scale 1, at `settings.sample_rate`, untrimmed.

    The format is detected from the content, not the name. A truncated file is a clip as far as it can be decoded. A
    header that declares more samples than there are costs no memory. If it declares fewer (an MP3 written to a pipe, or
    the first of several files in one), the rest is not read. Raises UnreadableClip, a ValueError that names the file
    and the remedy, if the file does not exist, is not audio, has no samples, a rate below 1 kHz or above 1 MHz, or
    samples that are not finite or over a million times full scale.
    """
    return load_clip_and_damage(path, settings)[0]


def load_clip_and_damage(path: str | Path, settings: MelConfig) -> tuple[np.ndarray, str]:
    """Load a clip like `load_clip`, and describe its damage, such as "breaks off after 0.5 of 2 s", or "" if none.

    A file is damaged if it holds less than its header declares, or over 4 KB more, if it cannot be decoded to its end,
    or if it is an Ogg without an end mark. Declared lengths of 0 (of a FLAC), or of 2 GiB or 2**31 samples and more,
    are ignored: files written to a pipe have them.
    """
    samples, sample_rate, damage = _decode(path)
    if not len(samples):
        raise UnreadableClip(path, "has no samples")
    if not SAMPLE_RATES[0] <= sample_rate <= SAMPLE_RATES[1]:
        raise UnreadableClip(path, f"has an implausible sample rate of {sample_rate} Hz")
    if not max(samples.max(), -samples.min()) <= LOUDEST:  # also true for NaN
        raise UnreadableClip(path, "has samples that are not finite or far beyond full scale")
    if sample_rate != settings.sample_rate:
        samples = librosa.resample(samples, orig_sr=sample_rate, target_sr=settings.sample_rate)
    return samples, damage


class _Stream(soundfile.SoundFile):
    """A sound file that is read sequentially."""

    def seekable(self) -> bool:
        return False  # or soundfile seeks after each read: a seam in MP3, an error in FLAC of unknown length


def _decode(path: str | Path, samples_per_read: int = SAMPLES_PER_READ) -> tuple[np.ndarray, int, str]:
    """Decode mono samples as far as possible; return them, their rate and the damage (see `load_clip_and_damage`)."""
    blocks, failed = [], False
    with (
        _named(path), open(path, "rb") as opened, _Stream(path) as by_name,
        # An open file knows where reading ended, but malformed files of other formats make it write to stderr.
        (_Stream(opened) if by_name.format in MAY_GO_ON else by_name) as file,
    ):  # fmt: skip
        try:
            for block in _mono_blocks(file, samples_per_read):
                blocks.append(block)  # noqa: PERF402 (blocks before a failure are kept)
        except soundfile.LibsndfileError:
            if samples_per_read > SAMPLES_PER_RETRY:
                return _decode(path, SAMPLES_PER_RETRY)
            if not blocks:
                raise
            failed = True
        # A clip of the usual length is a single block.
        samples = blocks[0] if len(blocks) == 1 else np.concatenate([*blocks, np.empty(0, np.float32)])
        return samples, file.samplerate, _damage(file, len(samples), failed, opened)


def _mono_blocks(file: soundfile.SoundFile, samples_per_read: int) -> Iterator[np.ndarray]:
    """Yield the file's samples block by block, mixed down to mono, float32."""
    # The competition's clips are 16-bit: scaling them here, to the same floats, halves the reading time.
    dtype, scale = ("int16", np.float32(2**-15)) if file.subtype == "PCM_16" else ("float32", np.float32(1))
    size = min(file.frames, samples_per_read // file.channels)
    while len(block := file.read(size, dtype=dtype, always_2d=True)):
        with np.errstate(over="ignore", invalid="ignore"):  # load_clip rejects the result
            yield block[:, 0] * scale if block.shape[1] == 1 else (block * scale).mean(axis=1)


def _damage(file: soundfile.SoundFile, decoded: int, failed: bool, opened: BinaryIO) -> str:
    """Describe a file's damage, given how many samples were decoded before decoding failed or ended."""
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
        return f"continues {seconds} s, where its header says it ends: convert it with another program"
    return f"has no end-of-stream mark {seconds} s" if NO_END_MARK.search(log) else ""


def _goes_on(file: soundfile.SoundFile, opened: BinaryIO) -> bool:
    """Whether more sound, not just tags, follows what was read of an `opened` file."""
    if file.format not in MAY_GO_ON or (file.format == "WAV" and "Exiting parser" not in file.extra_info):
        return False
    rest = opened.read(SAMPLES_PER_READ)  # a header that understates the length costs little memory too
    if len(rest) <= MOST_LEFT:
        return False
    if file.format == "OGG":
        return b"OggS" in rest
    if file.format == "MP3":
        return rest.startswith((b"\xff", b"ID3"))
    return not rest.lstrip(b"\0").startswith((b"APET", b"ID3", b"LIST"))


def load_part(path: str | Path, start: float, end: float) -> tuple[np.ndarray, int]:
    """Load the part of a recording from `start` to `end`, in seconds: float32 (samples, channels), and the rate.

    `end` may be infinite. If the file breaks off in that part, prints a line and returns what is there. (In one that is
    damaged before it, times may differ from those of `load_clip`.) Raises UnreadableClip if the file cannot be read
    there, or has nothing there.
    """
    blocks = []
    with _named(path), _Stream(path) as file:
        begin = min(round(start * file.samplerate), file.frames)
        at = max(0, begin - PREROLL)
        try:
            file.seek(at)
        except soundfile.LibsndfileError:  # such as GSM 6.10
            at = 0
        stop = math.inf if end == math.inf else begin + round((end - start) * file.samplerate)
        try:
            while len(block := file.read(int(min(stop - at, SAMPLES_PER_RETRY)), dtype="float32", always_2d=True)):
                at += len(block)
                if at > begin:
                    blocks.append(block[begin - at :])
        except soundfile.LibsndfileError:
            if not blocks:
                raise
            print(f"{path} breaks off after {at / file.samplerate:.3g} s: its part from {start:g} s ends there.")
        if not blocks:
            raise UnreadableClip(path, f"has no samples from {start:g} to {end:g} s")
        return np.concatenate(blocks), file.samplerate


def durations(table: pd.DataFrame) -> np.ndarray:
    """Return durations in seconds, float (clips with a known one,), from the headers; print how many are unknown."""
    seconds = []
    for path in table["path"]:
        with suppress(UnreadableClip), _named(path):
            seconds.append(soundfile.info(path).duration)
    known = np.array([length for length in seconds if length < MAX_DURATION])
    if len(known) < len(table):
        unknown = f"{len(table) - len(known)} of {len(table)} clips have an unknown duration"
        print(f"{unknown}; 02_preprocessing lists those that cannot be read")
    return known


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Turn an error from opening or reading `path` into one that names it."""
    try:
        yield
    except (OSError, soundfile.LibsndfileError, TypeError) as error:  # TypeError: the name ends in .raw
        detail = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
        if os.path.islink(path) and not os.path.exists(path):
            detail = "a link to a missing file"
        raise UnreadableClip(path, f"cannot be read as audio ({detail.rstrip('.') or 'decoding fails'})") from error


def find_sounds(folder: str | Path) -> list[Path]:
    """List the .wav, .flac, .ogg and .mp3 files in `folder` and below, sorted, without hidden ones.

    Prints how many other files were skipped. Raises FileNotFoundError if there is no sound or a link is broken,
    PermissionError if a folder cannot be read, and ValueError if a name is not UTF-8 or a folder is a link.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give the folder that holds the sounds.")
    shown = []
    for top, folders, names in os.walk(folder, onerror=_cannot_read):  # Path.rglob passes over what it cannot read
        folders[:] = [name for name in folders if not name.startswith(".")]
        # On other systems' disks, macOS leaves a ._NAME.wav that is not audio beside each NAME.wav.
        shown += [Path(top, name) for name in folders + names if not name.startswith(".")]
    shown.sort()
    links = [path for path in shown if path.is_symlink()]
    if linked := next((path for path in links if path.is_dir()), None):
        raise ValueError(f"{linked} is a link to a folder, which is not followed: replace it with the folder itself.")
    if broken := next((path for path in links if not path.exists()), None):
        raise FileNotFoundError(f"{broken} is a link to a missing file: restore the file, or remove the link.")
    shown = [path for path in shown if path.is_file()]
    sounds = [path for path in shown if path.suffix.lower() in SUFFIXES]
    if not sounds:
        raise FileNotFoundError(f"There is no sound in {folder}: put {', '.join(SUFFIXES)} files there.")
    files.refuse_undecodable([str(file.relative_to(folder)) for file in sounds], folder)
    others = [path.name for path in shown if path.suffix.lower() not in SUFFIXES]
    if others:
        example = os.fsencode(others[0]).decode(errors="replace")
        print(f"{folder}: skipped {len(others)} of {len(shown)} files, such as {example}: not {', '.join(SUFFIXES)}")
    return sounds


def _cannot_read(error: OSError) -> None:
    raise PermissionError(f"{error.filename} cannot be read ({error.strerror}): allow it, or move it away.")
