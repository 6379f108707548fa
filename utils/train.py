"""Clips on the device, training and scoring."""

import copy
import math
import platform
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from . import augment, data, metrics, runs
from .config import Preset, TrainingSettings
from .mel import Cache


class Clips:
    """Clips of a cache with their frames as tensors on `device`: `.table` as given, and `.truth` (clips, classes) if it has labels."""

    def __init__(self, cache: Cache, table: pd.DataFrame, classes: list[str], device: str | torch.device = "cpu") -> None:
        self.table, self.classes, self.mel, self.device = table, classes, cache.settings, torch.device(device)
        clips = cache.clips.iloc[cache.rows(table["fname"])]
        self.frames = torch.from_numpy(cache.frames).to(device)
        self.starts = torch.tensor(clips["start"].to_numpy(), device=device)
        self.lengths = torch.tensor(clips["length"].to_numpy(), device=device)
        self.floors = torch.tensor(clips["floor"].to_numpy(), device=device, dtype=torch.float32)
        self.truth = torch.tensor(data.multi_hot(table, classes), device=device) if "labels" in table else None

    def __len__(self) -> int:
        return len(self.table)

    def subset(self, rows: np.ndarray) -> "Clips":
        """The clips of these rows, over the same frames."""
        part = copy.copy(self)
        part.table = self.table.iloc[rows].reset_index(drop=True)
        for name in ("starts", "lengths", "floors", "truth"):
            if (tensor := getattr(self, name)) is not None:
                setattr(part, name, tensor[torch.as_tensor(rows, device=self.device)])
        return part

    def crop(self, rows: Tensor, offsets: Tensor, n_frames: int) -> Tensor:
        """A window of each of the clips `rows`, beginning at frame `offsets`: (clips, 1, n_mels, n_frames) in dB."""
        return augment.crop(self.frames, self.starts[rows], self.lengths[rows], self.floors[rows], offsets, n_frames)


def split_clips(cache: Cache, table: pd.DataFrame, classes: list[str], preset: Preset, device: str | torch.device) -> tuple[Clips, Clips]:
    """Training and validation clips on `device`: the same split for every model of a preset, known bad clips repaired."""
    table = data.repair(table)
    clips = Clips(cache, table, classes, device)
    training, validation = data.split(table, preset.validation_fraction, preset.seed)
    return clips.subset(training), clips.subset(validation)


def example_batch(training: Clips, settings: TrainingSettings, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch as `fit` draws them: dB (size, 1, n_mels, n_frames), and shares of labels (size, classes)."""
    generator = torch.Generator(training.device).manual_seed(settings.seed)
    rows = torch.randperm(len(training), generator=generator, device=training.device)[:size]
    x, truth = _batch(training, rows, settings, generator)
    return x.cpu().numpy(), truth.cpu().numpy()


def fit(model: nn.Module, training: Clips, validation: Clips, settings: TrainingSettings, folder: str | Path, title: str) -> runs.Run:
    """Train a copy of `model` on `training`, score `validation` after each epoch, and keep the outcome in `folder` as a Run.

    Binary cross-entropy of each class and Adam (paper, section IV). The weights and the scores kept are those of the **last**
    epoch: to keep the best one would be to choose by the clips it is judged on. Raises FloatingPointError if the loss is not finite.
    """
    device = training.device
    torch.manual_seed(settings.seed)
    generator = torch.Generator(device).manual_seed(settings.seed)
    model = copy.deepcopy(model).to(device, memory_format=torch.channels_last)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=settings.learning_rate, fused=True)
    scaler = torch.amp.GradScaler(enabled=_precision(device) == torch.float16)
    total = settings.epochs * math.ceil(len(training) / settings.batch_size)
    total = min(total, settings.max_steps or total)
    history, began, step, epoch = [], time.perf_counter(), 0, 0
    early = early_outputs(model, training, settings)
    with tqdm(total=total, desc=title, unit="step", file=sys.stdout, mininterval=1) as bar:
        while step < total:
            epoch += 1
            losses = []
            model.train()
            for rows in torch.randperm(len(training), generator=generator, device=device).split(settings.batch_size)[: total - step]:
                optimizer.param_groups[0]["lr"] = _learning_rate(settings, step, total)
                x, truth = _batch(training, rows, settings, generator) if early is None else (early[rows], training.truth[rows])
                with _autocast(device):
                    logits = model(x) if early is None else model.late(x)
                loss = bce(logits.float(), truth, settings.output)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                losses.append(loss.detach())
                step += 1
                bar.update()
            loss = torch.stack(losses).mean().item()
            if not math.isfinite(loss):
                raise FloatingPointError(f"{title}: the loss is {loss} in epoch {epoch}: lower the learning rate.")
            scores = predict(model, validation, settings)
            history.append({"epoch": epoch, "steps": step, "loss": loss} | _judge(validation, scores))
            bar.set_postfix(epoch=epoch, loss=f"{loss:.4f}", LWLRAP=f"{history[-1]['LWLRAP']:.3f}")
    record = {
        "title": title,
        "model": model.config,
        "training": asdict(settings),
        "mel": asdict(training.mel),
        "classes": training.classes,
        "clips": {"training": len(training), "validation": len(validation)},
        "seconds": round(time.perf_counter() - began, 1),
        "device": _device_name(device),
        "precision": str(_precision(device)),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__},
    }
    scored = pd.concat([validation.table[["fname", "labels"]], pd.DataFrame(scores, columns=validation.classes)], axis=1)
    return runs.save(Path(folder), model, record, pd.DataFrame(history), scored)


def early_outputs(model: nn.Module, clips: Clips, settings: TrainingSettings) -> Tensor | None:
    """What the frozen layers make of every clip, if it is the same in every epoch: computed once, they need not run again.

    (clips, channels, n_mels / 16, n_frames / 16), 64 KB per clip in half precision; None if no layer is frozen or the crops vary.
    """
    if not getattr(model, "frozen", 0) or not settings.repeats:
        return None
    outputs = []
    for rows in torch.arange(len(clips), device=clips.device).split(settings.batch_size):
        with _autocast(clips.device):
            x = clips.crop(rows, torch.zeros_like(rows), settings.n_frames)
            outputs.append(model.early(x.contiguous(memory_format=torch.channels_last)))
    return torch.cat(outputs)


def bce(logits: Tensor, truth: Tensor, output: str) -> Tensor:
    """Binary cross-entropy of each class against the rest, mean over clips and classes (paper, section IV.A).

    `output` says what makes a probability of a logit: "softmax" over the classes (the paper's words) or a "sigmoid" each.
    """
    if output == "sigmoid":
        return F.binary_cross_entropy_with_logits(logits, truth)
    log_p = F.log_softmax(logits, dim=1)
    log_not_p = torch.log1p(-log_p.exp().clamp(max=1 - 1e-6))
    return -(truth * log_p + (1 - truth) * log_not_p).mean()


def activate(logits: Tensor, output: str) -> Tensor:
    """Probabilities of the classes, (clips, classes), by the `output` that the model was trained with."""
    return logits.sigmoid() if output == "sigmoid" else logits.softmax(dim=1)


@torch.inference_mode()
def predict(model: nn.Module, clips: Clips, settings: TrainingSettings, progress: str = "") -> np.ndarray:
    """Scores of each clip, float32 (clips, classes): probabilities, averaged over at most `settings.windows` windows.

    The windows are spread evenly from the clip's first frame to its last; with one, it is the first 2 s.
    """
    model.to(clips.device, memory_format=torch.channels_last).eval()
    n_frames = settings.n_frames
    count = (clips.lengths / n_frames).ceil().long().clamp(1, settings.windows)
    rows = torch.repeat_interleave(torch.arange(len(clips), device=clips.device), count)
    number = torch.arange(len(rows), device=clips.device) - (count.cumsum(0) - count)[rows]
    room = (clips.lengths - n_frames).clamp(min=0)
    offsets = (room[rows] * number / (count[rows] - 1).clamp(min=1)).long()
    total = torch.zeros(len(clips), len(clips.classes), device=clips.device)
    batches = list(zip(rows.split(64), offsets.split(64)))
    for some, at in tqdm(batches, progress, unit="batch", file=sys.stdout, mininterval=1, disable=not progress):
        with _autocast(clips.device):
            logits = model(clips.crop(some, at, n_frames).contiguous(memory_format=torch.channels_last))
        total.index_add_(0, some, activate(logits.float(), settings.output))
    return (total / count[:, None]).cpu().numpy()


def score(run: runs.Run, clips: Clips) -> np.ndarray:
    """Scores of the run's model for `clips`, as `predict`. Raises ValueError if it was trained on other classes or mel settings."""
    if run.classes != clips.classes:
        raise ValueError(f"{run.name} knows {len(run.classes)} classes, and not these {len(clips.classes)}: train it on these data.")
    if run.mel != clips.mel:
        raise ValueError(f"{run.name} was trained on {run.mel}, and not on {clips.mel}: make the cache with its settings.")
    return predict(run.model(), clips, run.training, progress=run.name)


def _batch(training: Clips, rows: Tensor, settings: TrainingSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if settings.crop == "random":
        offsets = augment.random_offsets(training.lengths[rows], settings.n_frames, generator)
    else:
        offsets = torch.zeros_like(rows)
    x, truth = training.crop(rows, offsets, settings.n_frames), training.truth[rows]
    if settings.mixup:
        x, truth = augment.mixup(x, truth, generator)
    if settings.masking:
        x = augment.mask(x, generator)
    return x.contiguous(memory_format=torch.channels_last), truth


def _learning_rate(settings: TrainingSettings, step: int, total: int) -> float:
    if settings.schedule == "constant":
        return settings.learning_rate
    warm_up = max(1, total // 10)
    if step < warm_up:
        return settings.learning_rate * (step + 1) / warm_up
    return settings.learning_rate * (1 + math.cos(math.pi * (step - warm_up) / (total - warm_up))) / 2


def _judge(clips: Clips, scores: np.ndarray) -> dict[str, float]:
    return {
        "LWLRAP": metrics.lwlrap(clips.truth.cpu().numpy(), scores),
        "top-5": metrics.top_k_accuracy(data.first_label(clips.table, clips.classes), scores),
    }


@lru_cache
def _precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware computes in it, else float16 on a GPU, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch cannot tell
    return torch.bfloat16 if capabilities.get("avx512_bf16") else torch.float32


def _autocast(device: torch.device):
    precision = _precision(device)
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
