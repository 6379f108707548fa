"""Training, scoring, and the run folder that keeps what came of it."""

import json
import math
import platform
import shutil
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from . import augment, data, metrics, models
from .config import MelSettings, TrainingSettings
from .mel import Cache


class Clips:
    """Clips of a cache, their frames and labels as tensors on `device`; `truth` is None where the table has no labels."""

    def __init__(self, cache: Cache, table: pd.DataFrame, classes: list[str], device: str | torch.device = "cpu") -> None:
        rows = cache.rows(table["fname"])
        clips = cache.clips.iloc[rows]
        self.fnames, self.classes, self.mel, self.device = list(table["fname"]), classes, cache.settings, torch.device(device)
        self.frames = torch.from_numpy(cache.frames).to(device)
        self.starts = torch.tensor(clips["start"].to_numpy(), device=device)
        self.lengths = torch.tensor(clips["length"].to_numpy(), device=device)
        self.floors = torch.tensor(clips["floor"].to_numpy(), device=device, dtype=torch.float32)
        self.truth = self.first_label = None
        if "labels" in table:
            self.truth = torch.tensor(data.multi_hot(table, classes), device=device)
            self.first_label = data.first_label(table, classes)

    def __len__(self) -> int:
        return len(self.fnames)

    def crop(self, rows: Tensor, offsets: Tensor, n_frames: int) -> Tensor:
        """A window of each of the clips `rows`, beginning at frame `offsets`: (clips, 1, n_mels, n_frames) in dB."""
        return augment.crop(self.frames, self.starts[rows], self.lengths[rows], self.floors[rows], offsets, n_frames)


def fit(
    model: nn.Module, train: Clips, valid: Clips, settings: TrainingSettings, folder: str | Path, title: str, preset: str = ""
) -> "Run":
    """Train `model` on `train`, score `valid` after each epoch, and keep the outcome in `folder` as a Run.

    Binary cross-entropy of each class and Adam (paper, section IV). The weights and the scores kept are those of the **last**
    epoch: to keep the best one would be to choose by the clips it is judged on. Raises FloatingPointError if the loss is not finite.
    """
    device = train.device
    torch.manual_seed(settings.seed)
    generator = torch.Generator(device).manual_seed(settings.seed)
    model.to(device, memory_format=torch.channels_last)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=settings.learning_rate)
    scaler = torch.amp.GradScaler(enabled=_precision(device) == torch.float16)
    total = settings.epochs * math.ceil(len(train) / settings.batch_size)
    total = min(total, settings.max_steps or total)
    history, began, step, epoch = [], time.perf_counter(), 0, 0
    with tqdm(total=total, desc=title, unit="step", file=sys.stdout, leave=False) as bar:
        while step < total:
            epoch += 1
            losses = []
            model.train()
            for rows in torch.randperm(len(train), generator=generator, device=device).split(settings.batch_size)[: total - step]:
                optimizer.param_groups[0]["lr"] = _learning_rate(settings, step, total)
                x, truth = _batch(train, rows, settings, generator)
                with _autocast(device):
                    logits = model(x)
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
            scores = predict(model, valid, settings)
            history.append({"epoch": epoch, "steps": step, "loss": loss} | _judge(valid, scores))
            bar.set_postfix(epoch=epoch, loss=f"{loss:.4f}", LWLRAP=f"{history[-1]['LWLRAP']:.3f}")
    record = {
        "title": title,
        "preset": preset,
        "model": model.config,
        "training": asdict(settings),
        "mel": asdict(train.mel),
        "classes": train.classes,
        "clips": {"training": len(train), "validation": len(valid)},
        "seconds": round(time.perf_counter() - began, 1),
        "device": _device_name(device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__},
    }
    return _save(Path(folder), model, record, history, valid.fnames, scores)


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
    for some, at in tqdm(batches, progress, unit="batch", file=sys.stdout, leave=False, disable=not progress):
        with _autocast(clips.device):
            logits = model(clips.crop(some, at, n_frames).contiguous(memory_format=torch.channels_last))
        total.index_add_(0, some, activate(logits.float(), settings.output))
    return (total / count[:, None]).cpu().numpy()


def _batch(train: Clips, rows: Tensor, settings: TrainingSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if settings.crop == "random":
        offsets = augment.random_offsets(train.lengths[rows], settings.n_frames, generator)
    else:
        offsets = torch.zeros_like(rows)
    x, truth = train.crop(rows, offsets, settings.n_frames), train.truth[rows]
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


def _judge(valid: Clips, scores: np.ndarray) -> dict[str, float]:
    return {
        "LWLRAP": metrics.lwlrap(valid.truth.cpu().numpy(), scores),
        "top-5": metrics.top_k_accuracy(valid.first_label, scores),
    }


def _precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware computes in it, else float16 on a GPU, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def _autocast(device: torch.device):
    precision = _precision(device)
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


@dataclass(frozen=True)
class Run:
    """A finished training: a folder with weights.safetensors, history.csv, validation.csv and settings.json.

    `.history` has a row an epoch; `.validation` the scores of the validation clips at the last epoch (fname, then a
    column a class); `.record` the settings, classes, versions and times.
    """

    folder: Path

    @property
    def record(self) -> dict:
        return json.loads((self.folder / "settings.json").read_text())

    @property
    def title(self) -> str:
        return self.record["title"]

    @property
    def history(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "history.csv")

    @property
    def validation(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "validation.csv", dtype={"fname": str}).set_index("fname")

    @property
    def training(self) -> TrainingSettings:
        return TrainingSettings(**self.record["training"])

    @property
    def mel(self) -> MelSettings:
        return MelSettings(**self.record["mel"])

    def model(self) -> nn.Module:
        """The trained model, on the CPU."""
        model = models.build(self.record["model"])
        safetensors.torch.load_model(model, self.folder / "weights.safetensors")
        return model


def find_runs(folder: str | Path) -> list[Run]:
    """The finished runs in `folder`, by name."""
    return [Run(file.parent) for file in sorted(Path(folder).glob("*/settings.json"))]


def _save(folder: Path, model: nn.Module, record: dict, history: list[dict], fnames: list[str], scores: np.ndarray) -> Run:
    """Write the run beside its place, then move it there, so that a run is whole or not there."""
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    safetensors.torch.save_model(model, unfinished / "weights.safetensors")
    pd.DataFrame(history).to_csv(unfinished / "history.csv", index=False)
    table = pd.DataFrame(scores, columns=record["classes"], index=pd.Index(fnames, name="fname"))
    table.to_csv(unfinished / "validation.csv")
    (unfinished / "settings.json").write_text(json.dumps(record, indent=1))
    if folder.exists():
        shutil.rmtree(folder)
    unfinished.rename(folder)
    return Run(folder)
