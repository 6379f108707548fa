"""Ours against the plain way, in one run: python -m tests.bench [--data DIR] [--quick]

Each row alternates the two and takes medians; only ratios within one run mean anything. The plain ways: librosa's functions, one
clip after another; a DataLoader over one .npy file per clip, with the same model; VGG19 with its frozen layers run
in every epoch; LWLRAP clip by clip, and scikit-learn's.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import torch
from sklearn.metrics import label_ranking_average_precision_score
from torch.utils.data import DataLoader, Dataset

from utils import mel, metrics, models, setup, train
from utils.clips import Clips
from utils.config import QUICK


def alternate(plain: Callable[[], object], ours: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds of either, run in turn after a first run of both."""
    seconds = {plain: [], ours: []}
    for repeat in range(repeats + 1):
        for way in (plain, ours):
            began = time.perf_counter()
            way()
            if repeat:
                seconds[way].append(time.perf_counter() - began)
    return statistics.median(seconds[plain]), statistics.median(seconds[ours])


def plain_log_mel(path: str) -> np.ndarray:
    s = QUICK.mel
    samples, _ = librosa.load(path, sr=s.sample_rate)
    samples, _ = librosa.effects.trim(samples, top_db=s.trim_db)
    power = librosa.feature.melspectrogram(
        y=samples, sr=s.sample_rate, n_fft=s.n_fft, hop_length=s.hop_length, n_mels=s.n_mels, fmin=s.fmin, fmax=s.fmax, htk=True
    )
    return librosa.power_to_db(power)


class NpyClips(Dataset):
    """One .npy file per clip, cropped at random: what most kernels of the competition do."""

    def __init__(self, files: list[Path], truth: torch.Tensor) -> None:
        self.files, self.truth = files, truth

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        clip = torch.from_numpy(np.load(self.files[i])).float()
        if clip.shape[1] < 128:
            clip = torch.nn.functional.pad(clip, (0, 128 - clip.shape[1]), value=clip.min().item())
        offset = torch.randint(clip.shape[1] - 127, ()).item()
        return clip[None, :, offset : offset + 128], self.truth[i]


def training_epoch(model: torch.nn.Module, batches: Callable[[], object], settings) -> None:
    """One pass of forward, loss, backward and step over `batches`, as `fit` does it."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    model.train()
    for x, truth in batches():
        with train._autocast(x.device):
            logits = model(x)
        optimizer.zero_grad(set_to_none=True)
        train.bce(logits.float(), truth, settings.output).mean().backward()
        optimizer.step()


def clip_by_clip(truth: np.ndarray, scores: np.ndarray) -> float:
    """LWLRAP as the competition's own example computes it: a loop over clips."""
    hits, labels = 0.0, 0
    for wanted, clip in zip(truth > 0, scores):
        order = np.argsort(-clip)
        right = wanted[order]
        hits += (np.cumsum(right) / np.arange(1, len(right) + 1))[right].sum()
        labels += wanted.sum()
    return hits / labels


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", help="a folder in Kaggle's or Zenodo's layout (FAT_DATA)")
    parser.add_argument("--quick", action="store_true", help="fewer clips and repeats")
    options = parser.parse_args()
    if options.data:
        os.environ["FAT_DATA"] = options.data
    kit = setup(preset="quick")
    n, repeats = (60, 3) if options.quick else (240, 5)
    curated, classes, device = kit.competition.curated.head(n), kit.competition.classes, torch.device(kit.device)
    rows = []

    def row(what: str, plain_way: str, plain: Callable[[], object], ours: Callable[[], object], times: int = repeats) -> None:
        a, b = alternate(plain, ours, times)
        print(f"{what} against {plain_way}: {a / b:.1f}x", flush=True)
        rows.append({"what": what, "the plain way": plain_way, "plain, s": a, "ours, s": b, "ratio": a / b})

    with tempfile.TemporaryDirectory() as folder:
        paths = list(curated["path"])
        torch.set_num_threads(1)
        for path in paths[:20]:
            assert np.abs(plain_log_mel(path) - mel.clip_to_log_mel(path, QUICK.mel)).max() < 0.01
        row(
            f"{n} clips to log-mel, one core", "librosa's functions",
            lambda: [plain_log_mel(path) for path in paths],
            lambda: [mel.clip_to_log_mel(path, QUICK.mel) for path in paths],
        )  # fmt: skip
        cores = os.cpu_count()
        row(
            f"the same, {cores} cores", "ours on one core",
            lambda: list(mel._all_frames(curated, QUICK.mel, 1)),
            lambda: list(mel._all_frames(curated, QUICK.mel, cores)),
        )  # fmt: skip

        torch.set_num_threads(cores)
        clips = Clips(mel.build_cache(curated, folder, "bench", QUICK.mel), curated, classes, device)
        files = [Path(folder) / f"{fname}.npy" for fname in curated["fname"]]
        for file, path in zip(files, paths):
            np.save(file, mel.clip_to_log_mel(path, QUICK.mel))
        loader = DataLoader(NpyClips(files, clips.truth.cpu()), 32, shuffle=True, num_workers=cores, persistent_workers=True)
        generator = torch.Generator(device).manual_seed(0)
        network = models.DeepCNN(len(classes), kit.preset.width).to(device, memory_format=torch.channels_last)
        row(
            f"training epoch of {n} clips, {device.type}", "DataLoader, .npy per clip",
            lambda: training_epoch(network, lambda: ((x.to(device), y.to(device)) for x, y in loader), QUICK.deep_cnn),
            lambda: training_epoch(
                network,
                lambda: (
                    train._batch(clips, some, QUICK.deep_cnn, generator)
                    for some in torch.randperm(n, generator=generator, device=device).split(32)
                ),
                QUICK.deep_cnn,
            ),
        )  # fmt: skip

        few = clips.subset(np.arange(min(n, 32 if device.type == "cpu" else 240)))
        everything = torch.arange(len(few), device=device)
        vgg19 = models.freeze_early_layers(models.vgg19(len(classes))).to(device, memory_format=torch.channels_last)
        first = few.crop(everything, torch.zeros_like(everything), 128).contiguous(memory_format=torch.channels_last)
        kept = train.early_outputs(vgg19, few, replace(QUICK.vgg19_transfer, crop="start"))
        late = models.Late(vgg19)
        row(
            f"VGG19 transfer epoch of {len(few)} clips", "frozen layers run again",
            lambda: training_epoch(vgg19, lambda: zip(first.split(16), few.truth.split(16)), QUICK.vgg19_transfer),
            lambda: training_epoch(late, lambda: zip(kept.split(16), few.truth.split(16)), QUICK.vgg19_transfer), times=2,
        )  # fmt: skip

    rng = np.random.default_rng(0)
    truth = (rng.random((4481, 80)) < 1.4 / 80).astype(np.float32)
    scores = rng.random((4481, 80)).astype(np.float32)
    ours = lambda: metrics.lwlrap(truth, scores)  # noqa: E731
    row("LWLRAP of 4,481 x 80", "clip by clip", lambda: clip_by_clip(truth, scores), ours)
    oracle = lambda: label_ranking_average_precision_score(truth, scores, sample_weight=truth.sum(axis=1))  # noqa: E731
    row("LWLRAP of 4,481 x 80", "scikit-learn", oracle, ours)
    machine = f"{train._device_name(device)}, {os.cpu_count()} cores, python {platform.python_version()}, torch {torch.__version__}"
    print(f"\n{machine}, {time.strftime('%Y-%m-%d')}")
    print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
