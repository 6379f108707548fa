"""From an audio file to a log-mel spectrogram, and the cache that holds those of all clips."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import joblib
import librosa
import numpy as np
import pandas as pd
import scipy.fft
import scipy.sparse
import soundfile
from tqdm import tqdm

from .config import MelSettings, attached

REMEDY = "replace the file, or remove its row from the table"
BLOCK = 64  # frames transformed at once: few enough to stay in the processor's cache
CHUNK = 16  # clips per task of a worker: enough that handing it over costs little


def load_clip(path: str | Path, settings: MelSettings) -> np.ndarray:
    """The clip as mono float32 samples, full scale 1, at `settings.sample_rate`; ends untrimmed.

    Raises ValueError, naming the file and the remedy, if it is absent, no audio, empty or not finite.
    """
    with _named(path), soundfile.SoundFile(path) as file:
        sample_rate = file.samplerate
        if file.subtype == "PCM_16":  # the competition's format: scaling it here, to the same floats, halves the reading time
            samples = file.read(dtype="int16", always_2d=True) * np.float32(2**-15)
        else:
            samples = file.read(dtype="float32", always_2d=True)
    if not len(samples):
        raise ValueError(f"{path} has no samples: {REMEDY}.")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path} has samples that are not finite: {REMEDY}.")
    samples = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if sample_rate != settings.sample_rate:
        samples = librosa.resample(samples, orig_sr=sample_rate, target_sr=settings.sample_rate)
    return samples


def durations(table: pd.DataFrame) -> np.ndarray:
    """Length of each clip in seconds, read from the head of its file; float (clips,). Raises ValueError as `load_clip` does."""
    seconds = []
    for path in table["path"]:
        with _named(path):
            seconds.append(soundfile.info(path).duration)
    return np.array(seconds)


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Turn an error of reading `path` into a sentence that names it."""
    try:
        yield
    except (OSError, soundfile.LibsndfileError) as error:
        raise ValueError(f"{path} cannot be read as audio ({error}): {REMEDY}.") from error


def trim(samples: np.ndarray, settings: MelSettings) -> np.ndarray:
    """`samples` without the ends that stay `settings.trim_db` under the loudest frame (paper, section III).

    Gives what `librosa.effects.trim` gives, with its frames of 2048 samples every 512, in one pass over the samples.
    """
    hop = 512
    blocks = np.pad(samples, (2 * hop, 3 * hop - len(samples) % hop)).reshape(-1, hop)
    energy = np.einsum("ij,ij->i", blocks, blocks)
    loudness = np.maximum((energy[:-3] + energy[1:-2] + energy[2:-1] + energy[3:]) / (4 * hop), 1e-10)
    loud = np.flatnonzero(loudness > loudness.max() * 10 ** (-settings.trim_db / 10))
    return samples[loud[0] * hop : (loud[-1] + 1) * hop]


def fit_length(samples: np.ndarray, length: int) -> np.ndarray:
    """`samples` cut, or padded with zeros at the end, to `length` samples (paper, section III: 2 s)."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


@lru_cache
def mel_filters(settings: MelSettings) -> np.ndarray:
    """Triangular filters of equal area, float32 (n_mels, 1 + n_fft / 2).

    Their centres are evenly spaced in m = 2595 log10(1 + f / 700) (paper, section III), which is HTK's mel scale.
    """
    return librosa.filters.mel(
        sr=settings.sample_rate, n_fft=settings.n_fft, n_mels=settings.n_mels,
        fmin=settings.fmin, fmax=settings.fmax, htk=True,
    )  # fmt: skip


@lru_cache
def _sparse_filters(settings: MelSettings) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array(mel_filters(settings))  # each filter covers a few of the bins


@lru_cache
def _window(n_fft: int) -> np.ndarray:
    return librosa.filters.get_window("hann", n_fft, fftbins=True).astype(np.float32)


def log_mel(samples: np.ndarray, settings: MelSettings) -> np.ndarray:
    """Log-mel spectrogram in dB (full scale 1), float32 (n_mels, frames).

    `samples`: mono, shape (n,). Frame i is centred on sample i * hop_length, zeros lie beyond the ends, so
    there are 1 + n // hop_length frames. Values more than `top_db` under the loudest one, or under that of `amin`, are cut there.
    Raises ValueError on samples that are empty, not finite or not mono.
    """
    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise ValueError(f"log_mel wants finite mono samples of shape (n,), n > 0; it was given shape {samples.shape}.")
    padded = np.pad(samples, settings.n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, settings.n_fft)[:: settings.hop_length]
    filters, window = _sparse_filters(settings), _window(settings.n_fft)
    power = np.empty((settings.n_mels, len(frames)), dtype=np.float32)
    for i in range(0, len(frames), BLOCK):
        spectrum = scipy.fft.rfft(frames[i : i + BLOCK] * window)
        power[:, i : i + BLOCK] = filters @ (spectrum.real**2 + spectrum.imag**2).T
    return librosa.power_to_db(power, amin=settings.amin, top_db=settings.top_db)


def clip_to_log_mel(path: str | Path, settings: MelSettings) -> np.ndarray:
    """Read, trim and transform one file: float32 (n_mels, frames), as many frames as the clip is long."""
    return log_mel(trim(load_clip(path, settings), settings), settings)


class Cache:
    """The log-mel spectrograms of a list of clips, one after another in one memory-mapped array.

    `.frames` float16 (frames of all clips, n_mels), in dB; `.clips` a table with the columns `fname`, `start`
    (its first row in `.frames`), `length` (its rows) and `floor` (dB, what silence in it would be);
    `.settings` the MelSettings it was made with. `cache[fname]` is one clip, (n_mels, length).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.settings = MelSettings(**json.loads((self.folder / "settings.json").read_text()))
        self.clips = pd.read_csv(self.folder / "clips.csv", dtype={"fname": str}, keep_default_na=False)
        # Copy on write: nobody writes, but torch wants to be able to.
        self.frames = np.load(self.folder / "frames.npy", mmap_mode="c", allow_pickle=False)
        self._row = pd.Index(self.clips["fname"])

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, fname: str) -> np.ndarray:
        clip = self.clips.iloc[self.rows([fname])[0]]
        return np.asarray(self.frames[clip["start"] : clip["start"] + clip["length"]].T)

    def __repr__(self) -> str:
        hours = len(self.frames) * self.settings.hop_length / self.settings.sample_rate / 3600
        return f"{len(self)} clips, {hours:.2f} hours, {self.frames.nbytes / 1e6:.0f} MB"

    def rows(self, fnames: list[str]) -> np.ndarray:
        """Row of each clip in `.clips`; raises KeyError if one is not in the cache."""
        rows = self._row.get_indexer(fnames)
        if (rows < 0).any():
            raise KeyError(f"{np.asarray(fnames)[rows < 0][0]} is not in {self.folder}: make the cache again with this table.")
        return rows


def build_cache(table: pd.DataFrame, folder: str | Path, name: str, settings: MelSettings, n_jobs: int | None = None) -> Cache:
    """The Cache of the clips in `table` (columns `fname` and `path`), made on `n_jobs` processes or, if it is there, reused.

    It lies in `folder`/`name`-KEY, where KEY is a hash of the mel settings and of the names and sizes of the clips; on Kaggle, one in
    an attached notebook's output is reused too. It is written under a temporary name and renamed when whole.
    Raises ValueError, with every file that cannot be read.
    """
    target = _cache_folder(table, folder, name, settings)
    if target.is_dir():
        cache = Cache(target)
        print(f"{name}: reused {cache}, in {target.name}")
        return cache
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
    unfinished.mkdir(parents=True)
    try:
        _write_cache(unfinished, table, name, settings, n_jobs)
        unfinished.rename(target)
    except OSError:
        if not target.is_dir():  # or else another process made the same cache first
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    cache = Cache(target)
    print(f"{name}: made {cache}, in {target.name}")
    return cache


def load_cache(table: pd.DataFrame, folder: str | Path, name: str, settings: MelSettings) -> Cache:
    """The Cache that `build_cache` made of the same clips with the same settings. Raises FileNotFoundError if it did not."""
    target = _cache_folder(table, folder, name, settings)
    if not target.is_dir():
        raise FileNotFoundError(f"There is no cache of these {len(table)} {name} clips in {folder}: run 02_preprocessing first.")
    return Cache(target)


def _cache_folder(table: pd.DataFrame, folder: str | Path, name: str, settings: MelSettings) -> Path:
    clips = [[fname, os.stat(path).st_size] for fname, path in zip(table["fname"], table["path"])]
    key = hashlib.sha256(json.dumps([asdict(settings), clips]).encode()).hexdigest()[:12]
    own = Path(folder) / f"{name}-{key}"
    return own if own.is_dir() else next(iter(attached(f"cache/{own.name}")), own)


def _write_cache(folder: Path, table: pd.DataFrame, name: str, settings: MelSettings, n_jobs: int | None) -> None:
    lengths, floors, unreadable = [], [], []
    with open(folder / "frames.npy", "wb") as file:
        # numpy leaves room in the header for more rows, so it can be written again at the end.
        _write_npy_header(file, (0, settings.n_mels))
        for frames in tqdm(_all_frames(table, settings, n_jobs), name, len(table), unit="clip", file=sys.stdout, mininterval=1):
            if isinstance(frames, str):
                unreadable.append(frames)
                continue
            file.write(frames.tobytes())
            lengths.append(len(frames))
            floors.append(max(float(frames.max()) - settings.top_db, 10 * np.log10(settings.amin)))
        file.seek(0)
        _write_npy_header(file, (sum(lengths), settings.n_mels))
    if unreadable:
        raise ValueError(f"{len(unreadable)} of {len(table)} clips cannot be used:\n" + "\n".join(unreadable))
    starts = np.cumsum([0, *lengths[:-1]])
    clips = pd.DataFrame({"fname": list(table["fname"]), "start": starts[: len(lengths)], "length": lengths, "floor": floors})
    clips.to_csv(folder / "clips.csv", index=False)
    (folder / "settings.json").write_text(json.dumps(asdict(settings), indent=1))


def _write_npy_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})


def _all_frames(table: pd.DataFrame, settings: MelSettings, n_jobs: int | None) -> Iterator[np.ndarray | str]:
    """Frames of each clip in order, (length, n_mels) float16, or the sentence that says why there are none.

    Runs on joblib, so on whatever `joblib.parallel_config` names. A worker computes on one thread: nothing it calls uses more.
    """
    paths = list(table["path"])
    tasks = (joblib.delayed(_frames_of)(paths[i : i + CHUNK], settings) for i in range(0, len(paths), CHUNK))
    return chain.from_iterable(joblib.Parallel(n_jobs=n_jobs or -1, return_as="generator")(tasks))


def _frames_of(paths: list[str], settings: MelSettings) -> list[np.ndarray | str]:
    return [_frames(path, settings) for path in paths]


def _frames(path: str, settings: MelSettings) -> np.ndarray | str:
    try:
        return np.ascontiguousarray(clip_to_log_mel(path, settings).T, dtype=np.float16)
    except ValueError as error:
        return str(error)
