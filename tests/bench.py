"""Compare our speed and memory with baselines: python -m tests.bench [--data DIR] [--quick]

Each row alternates between ours and a baseline and takes medians; only ratios within one run mean anything. The
baselines are librosa's functions, clip by clip; a DataLoader over one .npy file per clip, with the same model;
torch.compile; the Deep CNN of width 16 without a stem; scoring clip by clip; VGG19 with its frozen layers run in every
epoch; LWLRAP clip by clip, and scikit-learn's. Memory is a process's peak, compared with that for a tenth of the clips.
"""

import argparse
import contextlib
import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import soundfile
import torch
from sklearn.metrics import label_ranking_average_precision_score
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from utils import inference, mel_cache, metrics, models, setup, train, workspace
from utils.config import MelConfig, TrainingConfig
from utils.dataset import MelDataset
from utils.workspace import ROOT, Workspace

MEL = MelConfig()
rows = []


def compare(what: str, baseline: str, plain: Callable[[], object], ours: Callable[[], object], repeats: int) -> None:
    """Run both in turn, after a warm-up of each, and add their median seconds as a row."""
    seconds = {plain: [], ours: []}
    for repeat in range(repeats + 1):
        for way in (plain, ours):
            began = time.perf_counter()
            way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:
                seconds[way].append(time.perf_counter() - began)
    add_row(what, baseline, statistics.median(seconds[plain]), statistics.median(seconds[ours]), "s")


def add_row(what: str, baseline: str, plain: float, ours: float, unit: str) -> None:
    rows.append(
        {"what": what, "baseline": baseline, "theirs": plain, "ours": ours, "unit": unit, "ratio": plain / ours}
    )
    print(f"{what} against {baseline}: {plain / ours:.1f}x", flush=True)


def librosa_log_mel(samples: np.ndarray, settings: MelConfig = MEL) -> np.ndarray:
    power = librosa.feature.melspectrogram(
        y=samples, sr=settings.sample_rate, n_fft=settings.n_fft, hop_length=settings.hop_length,
        n_mels=settings.n_mels, fmin=settings.fmin, fmax=settings.fmax, htk=True,
    )  # fmt: skip
    return librosa.power_to_db(power, amin=settings.amin, top_db=settings.top_db)


def librosa_clip(path: str) -> np.ndarray:
    samples, _ = librosa.load(path, sr=MEL.sample_rate)
    return librosa_log_mel(librosa.effects.trim(samples, top_db=MEL.trim_db)[0])


class NpyClips(Dataset):
    """One .npy file per clip, cropped at random, as in most of the competition's kernels."""

    def __init__(self, files: list[Path], targets: torch.Tensor) -> None:
        self.files, self.targets = files, targets

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        clip = torch.from_numpy(np.load(self.files[i])).float()
        if clip.shape[1] < 128:
            clip = torch.nn.functional.pad(clip, (0, 128 - clip.shape[1]), value=clip.min().item())
        offset = torch.randint(clip.shape[1] - 127, ()).item()
        return clip[None, :, offset : offset + 128], self.targets[i]


def training_epoch(trainer: train.Trainer, batches: Iterable) -> None:
    """Train for an epoch on `batches` that come from elsewhere, with the same steps as `Trainer.step`."""
    trainer.wrapped.train()
    for x, targets in batches:
        with inference.autocast(x.device):
            logits = trainer.wrapped(x.contiguous(memory_format=torch.channels_last))
        loss = train.bce(logits.float(), targets, trainer.config.activation).mean()
        trainer.update(loss)


def clip_by_clip(targets: np.ndarray, scores: np.ndarray) -> float:
    """LWLRAP as the competition's own example computes it: a loop over clips."""
    hits, labels = 0.0, 0
    for wanted, clip in zip(targets > 0, scores):
        order = np.argsort(-clip)
        right = wanted[order]
        hits += (np.cumsum(right) / np.arange(1, len(right) + 1))[right].sum()
        labels += wanted.sum()
    return hits / labels


def preprocessing(table: pd.DataFrame, folder: str, repeats: int) -> None:
    cores, n_threads, number = os.cpu_count(), torch.get_num_threads(), count()

    def cache(table: pd.DataFrame, n_jobs: int) -> mel_cache.Cache:
        with contextlib.redirect_stdout(io.StringIO()):
            return mel_cache.build(table, folder, f"cache{next(number)}", MEL, n_jobs)

    few = cache(table.head(20), 1)
    for clip in table.head(20).itertuples():
        assert np.abs(librosa_clip(clip.path) - few[clip.fname]).max() < 0.07  # dB, in float16
    torch.set_num_threads(1)
    compare(
        f"cache of {len(table)} clips, one core", "librosa's functions, .npy per clip",
        lambda: [np.save(Path(folder) / f"{clip.fname}.npy", librosa_clip(clip.path)) for clip in table.itertuples()],
        lambda: cache(table, 1), repeats,
    )  # fmt: skip
    torch.set_num_threads(n_threads)
    many = pd.concat([table] * 8, ignore_index=True)
    many["fname"] = [f"{row}-{fname}" for row, fname in enumerate(many["fname"])]
    compare(
        f"cache of {len(many)} clips, {cores} cores", "ours on one core",
        lambda: cache(many, 1), lambda: cache(many, cores), repeats,
    )  # fmt: skip


def memory(clips: int, folder: str) -> None:
    """Measure peak memory while caching `clips` clips of 8 s, and a tenth of them, each in fresh processes.

    The disk is slower than the workers, as a network disk may be: unwritten results must not pile up.
    """
    path = Path(folder) / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 8 * MEL.sample_rate), MEL.sample_rate)
    code = """
import re, sys, time
from pathlib import Path
import joblib
import pandas as pd
from utils import config, mel_cache

def peak():  # from Linux: what getrusage reports is inherited from the parent process
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e3

def slow(frames, *_, **__):
    for each in frames:
        time.sleep(0.006)
        yield each

mel_cache.tqdm = slow
path, clips = sys.argv[1], int(sys.argv[2])
table = pd.DataFrame({"fname": [f"{i}.wav" for i in range(clips)], "path": path})
mel_cache.build(table, path + sys.argv[2], "memory", config.MelConfig())
workers = joblib.Parallel(n_jobs=joblib.cpu_count())(joblib.delayed(peak)() for _ in range(100))
print(max(workers), peak())
"""

    def peak(clips: int) -> list[float]:
        command = [sys.executable, "-c", code, str(path), str(clips)]
        out = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        return [float(word) for word in out.split()[-2:]]

    few, all_of_them = peak(clips // 10), peak(clips)
    for process, a, b in zip(("a worker", "the parent"), few, all_of_them):
        add_row(f"memory of {process}, caching {clips} clips of 8 s", f"{clips // 10} clips", a, b, "MB")


def training(kit: Workspace, table: pd.DataFrame, folder: str, repeats: int) -> None:
    device, classes, preset = torch.device(kit.device), kit.competition.classes, kit.preset.name
    gpu, entry, silent = device.type == "cuda", models.MODELS["deep_cnn"], tqdm(disable=True)
    config = TrainingConfig(epochs=1, crop="random", activation="sigmoid", test_crops=8)
    clips = MelDataset(mel_cache.build(table, folder, "bench", MEL), table, classes, device)
    files = [Path(folder) / f"{fname}.npy" for fname in table["fname"]]  # written by `preprocessing`
    if gpu:  # as many as the competition has
        clips = clips.subset(np.resize(np.arange(len(clips)), 4000))
        files = list(np.resize(np.array(files, dtype=object), 4000))
    n = len(clips)
    loader = DataLoader(
        NpyClips(files, clips.targets), 32, shuffle=True, num_workers=os.cpu_count(), persistent_workers=True,
        pin_memory=gpu,
    )  # fmt: skip
    model = entry.build(len(classes), preset)
    as_preset = replace(config, optimizer=entry.config(preset).optimizer)
    ours, compiled = (train.Trainer(model, clips, as_preset, entry.title) for _ in range(2))
    what = f"training epoch of {n} clips, Deep CNN of {preset}, {device.type}"
    compare(
        what, "DataLoader, .npy per clip",
        lambda: training_epoch(ours, ([part.to(device, non_blocking=True) for part in batch] for batch in loader)),
        lambda: ours.epoch(1, 0, silent), repeats,
    )  # fmt: skip
    if gpu:
        print(f"400 epochs of {n} clips at that rate: {400 * rows[-1]['ours'] / 60:.1f} minutes")

    compiled.wrapped = torch.compile(compiled.wrapped)
    began = time.perf_counter()
    compiled.epoch(1, 0, silent)
    print(f"torch.compile: the first epoch took {time.perf_counter() - began:.0f} s")
    compare(what, "torch.compile", lambda: compiled.epoch(1, 0, silent), lambda: ours.epoch(1, 0, silent), repeats)

    some = clips.subset(np.arange(min(n, 1600 if gpu else 160)))
    ours, plain = (
        train.Trainer(entry.build(len(classes), "quick", **options), some, replace(config, optimizer=optimizer), "")
        for options, optimizer in (({}, "muon"), ({"width": 16, "stem": 0}, "adam"))
    )
    compare(
        f"{ours.steps_per_epoch} steps of at most 32 crops, Deep CNN of quick", "width 16 without a stem, Adam",
        lambda: plain.epoch(1, 0, silent), lambda: ours.epoch(1, 0, silent), repeats,
    )  # fmt: skip

    each = [clips.subset(np.array([row])) for row in range(min(n, 240))]
    some = clips.subset(np.arange(len(each)))
    compare(
        f"scores of {len(some)} clips, at most 8 crops each", "clip by clip",
        lambda: [inference.predict_scores(ours.model, clip, config) for clip in each],
        lambda: inference.predict_scores(ours.model, some, config), repeats,
    )  # fmt: skip

    few = clips.subset(np.arange(min(n, 1000 if gpu else 32 * repeats)))
    vgg19 = models.VGG19(len(classes))
    vgg19.freeze()
    once, again = (train.Trainer(vgg19, few, replace(config, crop=crop), "VGG19") for crop in ("start", "random"))
    assert once.features is not None and again.features is None
    compare(
        f"VGG19 transfer epoch of {len(few)} clips, {device.type}", "frozen layers rerun",
        lambda: again.epoch(1, 0, silent), lambda: once.epoch(1, 0, silent), repeats,
    )  # fmt: skip


def lwlrap(repeats: int) -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((4481, 80)) < 1.4 / 80).astype(np.float32)
    scores = rng.random((4481, 80)).astype(np.float32)
    plain = {
        "clip by clip": lambda: clip_by_clip(targets, scores),
        "scikit-learn": lambda: label_ranking_average_precision_score(
            targets, scores, sample_weight=targets.sum(axis=1)
        ),
    }
    for name, way in plain.items():
        assert abs(way() - metrics.lwlrap(targets, scores)) < 1e-6
        compare("LWLRAP of 4,481 x 80", name, way, lambda: metrics.lwlrap(targets, scores), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", help="data folder, in Kaggle's or Zenodo's layout (FAT_DATA)")
    parser.add_argument("--quick", action="store_true", help="fewer clips and repeats")
    options = parser.parse_args()
    kit = setup(options.data)
    clips, repeats = (60, 2) if options.quick else (240, 5)
    table = kit.competition.curated.head(clips)
    with tempfile.TemporaryDirectory() as folder:
        preprocessing(table, folder, repeats)
        memory(500 if options.quick else 5000, folder)
        training(kit, table, folder, repeats)
    lwlrap(repeats)
    machine = f"{workspace.device_name(kit.device)}, {os.cpu_count()} cores"
    print(f"\n{machine}, python {platform.python_version()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")
    print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
