"""Training and scoring.

python -m utils.train deep_cnn                                        train one of a preset's models
torchrun --standalone --nproc_per_node=gpu -m utils.train deep_cnn    the same on all GPUs of a machine
"""

import argparse
import copy
import json
import math
import os
import platform
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from . import augment, data, distributed, mel, metrics, models, run_folder
from .checkpoint import Checkpoint, fingerprint
from .dataset import MelDataset, load_split
from .config import Preset, TrainingConfig
from .workspace import setup, short_path

TITLES = {"deep_cnn": "Deep CNN", "vgg19_transfer": "VGG19, transfer", "vgg19_no_weights": "VGG19, no weights"}


def example_batch(training: MelDataset, settings: TrainingConfig, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch as `fit` draws them: dB (size, 1, n_mels, n_frames), and shares of labels (size, classes)."""
    generator = torch.Generator(training.home).manual_seed(settings.seed)
    rows = torch.randperm(len(training), generator=generator, device=training.home)[:size]
    x, targets = _batch(training, rows, settings, generator)
    return x.cpu().numpy(), targets.cpu().numpy()


def fit(model: nn.Module, training: MelDataset, validation: MelDataset, settings: TrainingConfig, folder: str | Path, title: str) -> run_folder.Run:
    """Train a copy of `model` on `training`, score `validation` after each epoch, and keep the outcome in `folder` as a Run.

    Binary cross-entropy of each class and Adam (paper, section IV). The weights and the scores kept are those of the **last**
    epoch: to keep the best one would be to choose by the clips it is judged on. A training that was stopped, asked for again, goes
    on after the last epoch it kept, to the same weights. Under torchrun every process calls it and takes its
    share of each batch; what comes out is the same as with one. Raises FloatingPointError if the loss is not finite, and ValueError
    if a batch has fewer clips than there are processes or if a clip is on both sides.
    """
    if both := set(training.table["fname"]) & set(validation.table["fname"]):
        raise ValueError(f"{title}: {min(both)} is a training and a validation clip: no figure would mean anything. Split them apart.")
    if settings.batch_size < distributed.world_size():
        raise ValueError(f"{title}: {distributed.world_size()} processes cannot share {settings.batch_size} clips: raise batch_size.")
    device, folder = training.device, Path(folder)
    generator = torch.Generator(training.home)
    model = copy.deepcopy(model).to(device, memory_format=torch.channels_last)
    early = early_outputs(model, training, settings)
    trained = distributed.parallel(model if early is None else models.Late(model))
    trainable = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=settings.learning_rate, fused=True)
    scaler = torch.amp.GradScaler(enabled=_precision(device) == torch.float16)
    steps_per_epoch = math.ceil(len(training) / settings.batch_size)
    total = min(settings.epochs * steps_per_epoch, settings.max_steps or math.inf)
    clips = [list(side.table["fname"] + ":" + side.table["labels"]) for side in (training, validation)]
    key = fingerprint(model, settings=asdict(settings), mel=asdict(training.mel), classes=training.classes, clips=clips)
    checkpoint = Checkpoint(folder, key, model=model, optimizer=optimizer, scaler=scaler)
    history, seconds = checkpoint.resume()
    began, step, scores = time.perf_counter() - seconds, history[-1]["steps"] if history else 0, None
    print(f"{title}: training {training!r}" + (f", going on after epoch {len(history)}, which was kept" if history else ""))
    with tqdm(total=total, initial=step, desc=title, unit="step", file=sys.stdout, mininterval=1) as bar:
        while step < total:
            epoch = len(history) + 1
            # What is drawn in an epoch depends on its number alone, so a run that was stopped goes on as if it had not been.
            generator.manual_seed(settings.seed + 1_000_003 * epoch)
            torch.manual_seed(settings.seed + 1_000_003 * epoch + 10_007 * distributed.rank())  # dropout differs between processes
            losses = []
            trained.train()
            order = torch.randperm(len(training), generator=generator, device=training.home)
            for rows in order.tensor_split(steps_per_epoch)[: total - step]:  # batches of one size, or one less
                optimizer.param_groups[0]["lr"] = _learning_rate(settings, step, total)
                x, targets = _batch(training, rows, settings, generator, early)
                with _autocast(device):
                    logits = trained(distributed.share(x))
                loss = bce(logits.float(), distributed.share(targets), settings.output).sum() / len(rows)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss * distributed.world_size()).backward()  # the mean over the processes is then that over the batch
                scaler.step(optimizer)
                scaler.update()
                losses.append(loss.detach())
                step += 1
                bar.update()
            losses = distributed.add_up(torch.stack(losses)).cpu()
            if not losses.isfinite().all():
                _stop(title, losses, step, total, settings, checkpoint)
            loss = losses.mean().item()
            scores = predict(model, validation, settings)
            history.append({"epoch": epoch, "steps": step, "loss": loss} | _judge(validation, scores))
            checkpoint.keep(history, time.perf_counter() - began, last=step == total)
            bar.set_postfix(epoch=epoch, loss=f"{loss:.4f}", LWLRAP=f"{history[-1]['LWLRAP']:.3f}")
    if scores is None:  # stopped after its last epoch, before it was written
        scores = predict(model, validation, settings)
    record = {
        "title": title,
        "model": model.config,
        "training": asdict(settings),
        "mel": asdict(training.mel),
        "classes": training.classes,
        "clips": {"training": len(training), "validation": len(validation)},
        "seconds": round(time.perf_counter() - began, 1),
        "device": _device_name(device),
        "processes": distributed.world_size(),
        "precision": str(_precision(device)),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__},
    }
    if distributed.rank() == 0:
        trained_on, judged_on = (clips.table[["fname", "labels"]] for clips in (training, validation))
        scored = pd.concat([judged_on, pd.DataFrame(scores, columns=validation.classes)], axis=1)
        run_folder.save(folder, model, record, pd.DataFrame(history), trained_on, scored)
        checkpoint.remove()
    distributed.barrier()
    return run_folder.Run(folder)


def _stop(title: str, losses: Tensor, step: int, total: int, settings: TrainingConfig, checkpoint: Checkpoint) -> None:
    """Raise FloatingPointError for the first of an epoch's `losses`, of which the last was at `step`, that is not finite."""
    bad = int((~losses.isfinite()).nonzero()[0])
    at = step - len(losses) + bad
    where = f"at step {at + 1}, learning rate {_learning_rate(settings, at, total):.2g}"
    kept = f"is {checkpoint.file}" if checkpoint.file.exists() else "was not yet made"
    raise FloatingPointError(f"{title}: the loss is {losses[bad]} {where}: lower it. The last good checkpoint {kept}.")


def early_outputs(model: nn.Module, clips: MelDataset, settings: TrainingConfig) -> Tensor | None:
    """What the frozen layers make of every clip, if it is the same in every epoch: computed once, they need not run again.

    (clips, channels, n_mels / 16, n_frames / 16), 64 KB per clip in half precision; None if no layer is frozen or the crops vary.
    """
    if not getattr(model, "frozen", 0) or not settings.repeats:
        return None
    outputs = []
    for rows in torch.arange(len(clips), device=clips.home).split(settings.batch_size):
        with _autocast(clips.device):
            x = clips.crop(rows, torch.zeros_like(rows), settings.n_frames)
            outputs.append(model.early(x.contiguous(memory_format=torch.channels_last)))
    return torch.cat(outputs)


def bce(logits: Tensor, targets: Tensor, output: str) -> Tensor:
    """Binary cross-entropy of each class against the rest, mean over the classes: (clips,) (paper, section IV.A).

    `output` says what makes a probability of a logit: "softmax" over the classes (the paper's words) or a "sigmoid" each.
    """
    if output == "sigmoid":
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
    log_p = F.log_softmax(logits, dim=1)
    log_not_p = torch.log1p(-log_p.exp().clamp(max=1 - 1e-6))
    return -(targets * log_p + (1 - targets) * log_not_p).mean(dim=1)


def activate(logits: Tensor, output: str) -> Tensor:
    """Probabilities of the classes, (clips, classes), by the `output` that the model was trained with."""
    return logits.sigmoid() if output == "sigmoid" else logits.softmax(dim=1)


@torch.inference_mode()
def predict(model: nn.Module, clips: MelDataset, settings: TrainingConfig, progress: str = "") -> np.ndarray:
    """Scores of each clip, float32 (clips, classes): probabilities, averaged over at most `settings.windows` windows.

    The windows are spread evenly from the clip's first frame to its last; with one, it is the first 2 s. Under torchrun every
    process calls it, takes its share of the windows, and gets the scores of all clips.
    """
    model.to(clips.device, memory_format=torch.channels_last).eval()
    n_frames = settings.n_frames
    count = (clips.lengths / n_frames).ceil().long().clamp(1, settings.windows)
    rows = torch.repeat_interleave(torch.arange(len(clips), device=clips.home), count)
    number = torch.arange(len(rows), device=clips.home) - (count.cumsum(0) - count)[rows]
    room = (clips.lengths - n_frames).clamp(min=0)
    offsets = (room[rows] * number / (count[rows] - 1).clamp(min=1)).long()
    total = torch.zeros(len(clips), len(clips.classes), device=clips.device)
    batches = list(zip(distributed.share(rows).split(64), distributed.share(offsets).split(64)))
    for some, at in tqdm(batches, progress, unit="batch", file=sys.stdout, mininterval=1, disable=not progress):
        with _autocast(clips.device):
            logits = model(clips.crop(some, at, n_frames).contiguous(memory_format=torch.channels_last))
        total.index_add_(0, clips.send(some), activate(logits.float(), settings.output))
    return (distributed.add_up(total) / clips.send(count)[:, None]).cpu().numpy()


def score(run: run_folder.Run, clips: MelDataset) -> np.ndarray:
    """Scores of the run's model for `clips`, as `predict`. Raises ValueError if it was trained on other classes or mel settings."""
    if run.classes != clips.classes:
        raise ValueError(f"{run.name} knows {len(run.classes)} classes, and not these {len(clips.classes)}: train it on these data.")
    if run.mel != clips.mel:
        raise ValueError(f"{run.name} was trained on {run.mel}, and not on {clips.mel}: make the cache with its settings.")
    return predict(run.model(), clips, run.training, progress=run.name)


def _batch(
    training: MelDataset, rows: Tensor, settings: TrainingConfig, generator: torch.Generator, early: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What the model is shown of the clips `rows`, on the device: crops, or `early` of them, and their labels."""
    targets = training.send(training.targets[rows])
    if early is not None:
        return early[training.send(rows)], targets
    if settings.crop == "random":
        offsets = augment.random_offsets(training.lengths[rows], settings.n_frames, generator)
    else:
        offsets = torch.zeros_like(rows)
    x = training.crop(rows, offsets, settings.n_frames)
    if settings.mixup:
        x, targets = augment.mixup(x, targets, generator)
    if settings.masking:
        x = augment.mask(x, generator)
    return x.contiguous(memory_format=torch.channels_last), targets


def _learning_rate(settings: TrainingConfig, step: int, total: int) -> float:
    if settings.schedule == "constant":
        return settings.learning_rate
    warm_up = max(1, total // 10)
    if step < warm_up:
        return settings.learning_rate * (step + 1) / warm_up
    return settings.learning_rate * (1 + math.cos(math.pi * (step - warm_up) / (total - warm_up))) / 2


def _judge(clips: MelDataset, scores: np.ndarray) -> dict[str, float]:
    return {
        "LWLRAP": metrics.lwlrap(clips.targets.cpu().numpy(), scores),
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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.train", description="Train one model, alone or started by torchrun.")
    parser.add_argument("model", choices=TITLES, help="which of the preset's models; the run is named MODEL-PRESET")
    parser.add_argument("--data", help="a folder in Kaggle's or Zenodo's layout (FAT_DATA)")
    parser.add_argument("--work", help="where artifacts go (FAT_WORK)")
    parser.add_argument("--preset", help="paper or quick (FAT_PRESET)")
    parser.add_argument("--settings", type=json.loads, default={}, help="what differs from the preset, such as '{\"batch_size\": 64}'")
    options = parser.parse_args(arguments)
    if options.work:
        os.environ["FAT_WORK"] = options.work
    with distributed.processes():
        kit = setup(options.data, options.preset)
        table, classes = kit.competition.curated, kit.competition.classes
        settings = replace(getattr(kit.preset, options.model), **options.settings)
        if distributed.is_first_here():
            mel.build_cache(table, kit.cache, "curated", kit.preset.mel)
        distributed.barrier()
        cache = mel.load_cache(table, kit.cache, "curated", kit.preset.mel)
        training, validation = load_split(cache, table, classes, kit.preset, kit.device)
        model = _untrained(options.model, kit.preset, len(classes))
        run = fit(model, training, validation, settings, kit.run_folder(options.model), TITLES[options.model])
        print(run.history.tail().round(3).to_string(index=False))
        print(f"written: {short_path(run.folder)}")


def _untrained(name: str, preset: Preset, n_classes: int) -> nn.Module:
    if name == "deep_cnn":
        return models.DeepCNN(n_classes, preset.width)
    weights = models.imagenet_weights() if name == "vgg19_transfer" else None
    if name == "vgg19_transfer" and not weights:
        raise SystemExit("No ImageNet weights: the hub cannot be reached and FAT_VGG19_WEIGHTS is not set.")
    return models.vgg19(n_classes, weights)


if __name__ == "__main__":
    main()
