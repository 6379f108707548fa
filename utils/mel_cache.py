"""The cache: log-mel spectrograms of all clips, computed once and read by everything that follows."""

import hashlib
import json
import sys
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

from . import data, files, splits
from .audio import REMEDY, UnreadableClip, load_clip_and_damage
from .config import MelConfig, attached
from .mel import log_mel, trim

CHUNK = 16  # clips per worker task: enough that dispatching it costs little
TASKS_AHEAD = 8  # per worker, dispatched at a time: at most this many results wait for a slow disk
MAX_LISTED = 10  # clips named in a message
VERSION = 4  # raise it when frames or tables change: every cache is then rebuilt


class NoReadableClip(ValueError):
    """Raised if no clip of a table can be read; the message lists them with the reasons."""


class Cache:
    """Log-mel spectrograms of a list of whole clips, one after another in one memory-mapped array.

    The paper cuts a clip to 2 s before the transform. Cut afterwards, its last two frames overlap what follows, and
    `top_db` counts from a maximum that may lie beyond the cut. `.frames`: float16 (frames of all clips, n_mels), in dB.
    `.clips`: a table with the columns `fname`, `start` (first row in `.frames`), `length` (rows), `pad_value` (dB, the
    level of silence) and `content_hash` (of its samples, since processors round frames differently; none of silence).
    `.settings`: the MelConfig. `cache[fname]`: one clip, (n_mels, length). `.unreadable`: a table, with the columns
    `fname` and `reason`, of clips left out because their files cannot be read. `.damaged`: one of clips included as far
    as their files go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.settings = MelConfig(**json.loads((self.folder / "settings.json").read_text()))
        text = {"fname": str, splits.CONTENT: str}
        self.clips = pd.read_csv(self.folder / "clips.csv", dtype=text, keep_default_na=False)
        self.unreadable = read_report(self.folder / "unreadable.csv")
        self.damaged = read_report(self.folder / "damaged.csv")
        self.frames = np.load(self.folder / "frames.npy", mmap_mode="r", allow_pickle=False)
        self._row = pd.Index(self.clips["fname"])

    def __reduce__(self) -> tuple:
        return Cache, (self.folder.resolve(),)  # another process opens it

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, fname: str) -> np.ndarray:
        clip = self.clips.iloc[self.rows([fname])[0]]
        return np.asarray(self.frames[clip["start"] : clip["start"] + clip["length"]].T)

    def __repr__(self) -> str:
        hours = len(self.frames) * self.settings.hop_length / self.settings.sample_rate / 3600
        return f"{len(self)} clips, {hours:.2f} hours, {self.frames.nbytes / 1e6:.0f} MB"

    def rows(self, fnames: list[str]) -> np.ndarray:
        """Return the row of each clip in `.clips`; raises KeyError, with the reason, if one is not in the cache."""
        rows = self._row.get_indexer(fnames)
        if (rows < 0).any():
            fname = np.asarray(fnames)[rows < 0][0]
            reasons = self.unreadable.set_index("fname")["reason"]
            why = f"it {reasons[fname]}: {REMEDY}" if fname in reasons else "rebuild the cache with this table"
            raise KeyError(f"{fname} is not in {self.folder}: {why}.")
        return rows

    def readable(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return `table` without the clips in `.unreadable`."""
        return table[~table["fname"].isin(self.unreadable["fname"])].reset_index(drop=True)


def read_report(file: Path) -> pd.DataFrame:
    """Read a cache's table of unreadable or damaged clips, columns `fname` and `reason`; empty if there is no file."""
    if not file.exists():
        return pd.DataFrame({"fname": [], "reason": []}, dtype=str)
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def format_report(report: pd.DataFrame, most: int = MAX_LISTED) -> str:
    """Format such a table as a line per clip, at most `most`."""
    lines = [f"  {fname} {reason}" for fname, reason in zip(report["fname"], report["reason"])]
    more = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join(lines[:most] + more)


def build(
    table: pd.DataFrame,
    folder: str | Path,
    name: str,
    settings: MelConfig,
    n_jobs: int = -1,
    temporary: bool = False,
) -> Cache:
    """Build the Cache of the clips in `table` (columns `fname` and `path`) on `n_jobs` processes, or reuse it.

    It is written to `folder`/`name`-KEY, complete or not at all; on Kaggle, one in an attached notebook's output is
    reused too. KEY is a hash of the mel settings and of each clip's name, size and first, middle and last 4 KB.
    Unreadable clips are left out and listed in `.unreadable`, and the cache is rebuilt once one of them can be read.
    Damaged clips are included and listed in `.damaged`. Prints a line on the cache and the first ten of both lists; if
    `temporary`, only the lists, whole. Raises NoReadableClip, a ValueError, if no clip can be read; ValueError if a
    name occurs twice, is not UTF-8 or has a line break; OSError if the cache cannot be written; MemoryError if a
    process was killed.
    """
    twice = table["fname"][table["fname"].duplicated()]
    if len(twice):
        raise ValueError(f"{name}: {twice.iloc[0]} is listed more than once: give each clip a name of its own.")
    files.refuse_undecodable(table["fname"], name)
    files.refuse_line_breaks(table["fname"], name)
    done, target = "reused", _cache_folder(table, folder, name, settings)
    cache = Cache(target) if target.is_dir() else None
    if cache is None or _mended(cache, table):
        target, done = Path(folder) / target.name, "made"  # an attached one is left as it is
        replace = cache is not None
        cache = None  # Windows cannot rename the folder of a memory-mapped file
        with files.atomic_folder(target, replace) as unfinished:
            _write_cache(unfinished, table, name, settings, n_jobs)
        cache = Cache(target)
    if not temporary:
        print(f"{name}: {done} {cache}, in {target.name}")
    _print_reasons(cache, name, temporary)
    return cache


def load(table: pd.DataFrame, folder: str | Path, name: str, settings: MelConfig) -> Cache:
    """Load the Cache that `build` made of the same clips with the same settings. Raises FileNotFoundError if none."""
    target = _cache_folder(table, folder, name, settings)
    if not target.is_dir():
        there = f"There is no cache of these {len(table)} {name} clips in {folder}"
        remedy = "run 02_preprocessing first (python -m utils.run 02, with your --data and --work)"
        raise FileNotFoundError(f"{there}: {remedy}.")
    cache = Cache(target)
    _print_reasons(cache, name)
    return cache


def _print_reasons(cache: Cache, name: str, temporary: bool = False) -> None:
    count = len(cache) + len(cache.unreadable)
    lists = {"unreadable": "cannot be read and are left out", "damaged": "are damaged and used as far as they go"}
    for kind, what in lists.items():
        clips = getattr(cache, kind)
        if len(clips):  # utils.run looks for such lines in the notebooks' output
            where = "" if temporary else f", see {cache.folder / kind}.csv"
            print(f"{name}: {len(clips)} of {count} clips {what}{where}")
            print(format_report(clips, len(clips) if temporary else MAX_LISTED))
    silent = cache.clips["fname"][cache.clips[splits.CONTENT] == ""]
    if len(silent):
        print(f"{name}: {len(silent)} of {count} clips are silent, such as {silent.iloc[0]}")


def _mended(cache: Cache, table: pd.DataFrame) -> bool:
    """Whether a clip that was unreadable when `cache` was made can be read now: a mounted drive may have failed."""
    paths = table["path"][table["fname"].isin(cache.unreadable["fname"])]
    return any(frames is not None for frames, *_ in _frames(list(paths), cache.settings))


def _cache_folder(table: pd.DataFrame, folder: str | Path, name: str, settings: MelConfig) -> Path:
    clips = list(zip(table["fname"], data.content_keys(table["path"])))
    key = hashlib.sha256(json.dumps([VERSION, asdict(settings), clips]).encode()).hexdigest()[:12]
    own = Path(folder) / f"{name}-{key}"
    return own if own.is_dir() else next(iter(attached(f"cache/{own.name}")), own)


def _write_cache(folder: Path, table: pd.DataFrame, name: str, settings: MelConfig, n_jobs: int) -> None:
    clips, reports, end = [], {"unreadable": [], "damaged": []}, 0
    with open(folder / "frames.npy", "wb") as file:
        # numpy leaves room in the header for more rows, so it can be rewritten at the end.
        _write_npy_header(file, (0, settings.n_mels))
        all_frames = _all_frames(list(table["path"]), settings, n_jobs)
        few = len(table) < 2  # a bar would say nothing
        progress = tqdm(all_frames, name, len(table), disable=few, unit="clip", file=sys.stdout, mininterval=1, delay=1)
        for (frames, reason, content_hash), fname in zip(progress, table["fname"]):
            if reason:
                reports["unreadable" if frames is None else "damaged"].append((fname, reason))
            if frames is not None:
                file.write(frames.tobytes())
                clips.append((fname, end, len(frames), settings.silence(float(frames.max())), content_hash))
                end += len(frames)
        file.seek(0)
        _write_npy_header(file, (end, settings.n_mels))
    reports = {kind: pd.DataFrame(rows, columns=["fname", "reason"]) for kind, rows in reports.items()}
    if not clips:
        listed = format_report(reports["unreadable"])
        raise NoReadableClip(f"{name}: none of {len(table)} clips can be read:\n{listed}")
    for kind, report in reports.items():
        if len(report):
            report.to_csv(folder / f"{kind}.csv", index=False)
    columns = ["fname", "start", "length", "pad_value", splits.CONTENT]
    pd.DataFrame(clips, columns=columns).to_csv(folder / "clips.csv", index=False)
    (folder / "settings.json").write_text(json.dumps(asdict(settings), indent=1))


def _write_npy_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})


def _all_frames(paths: list[str], settings: MelConfig, n_jobs: int) -> Iterator[tuple[np.ndarray | None, str, str]]:
    """Yield what `_frames` returns for each clip, in order.

    Runs on joblib, and so on any backend set by `joblib.parallel_config`. A worker is single-threaded: nothing it calls
    uses more. joblib works through all tasks it is given, however slowly their results are consumed, so it gets them in
    windows.
    """
    tasks = [joblib.delayed(_frames)(paths[i : i + CHUNK], settings) for i in range(0, len(paths), CHUNK)]
    window = TASKS_AHEAD * joblib.effective_n_jobs(n_jobs)
    try:
        with joblib.Parallel(n_jobs=n_jobs, return_as="generator") as parallel:
            for i in range(0, len(tasks), window):
                yield from chain.from_iterable(parallel(tasks[i : i + window]))
    except BrokenProcessPool as error:
        remedy = "set LOKY_MAX_CPU_COUNT=1 to read one file at a time, or cut files of an hour (2.4 GB) into parts"
        raise MemoryError(f"A process that read sounds was killed, probably for lack of memory: {remedy}.") from error


def _frames(paths: list[str], settings: MelConfig) -> list[tuple[np.ndarray | None, str, str]]:
    """Compute each clip's frames, float16 (length, n_mels), or None; the reason for None, or the damage; its hash."""
    results = []
    for path in paths:
        try:
            samples, damage = load_clip_and_damage(path, settings)
            frames = log_mel(trim(samples, settings), settings).T
            sound = hashlib.blake2b(np.ascontiguousarray(samples), digest_size=8).hexdigest()
            content_hash = sound if samples.any() else ""  # silence is no copy of other silence
            results.append((np.ascontiguousarray(frames, dtype=np.float16), damage, content_hash))
        except UnreadableClip as error:
            results.append((None, error.reason, ""))
    return results
