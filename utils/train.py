"""Train a model."""

import contextlib
import copy
import hashlib
import json
import math
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from . import augment, distributed, models, muon
from .checkpoint import Checkpoint
from .config import NO_AUGMENTATION, TrainingConfig
from .dataset import MelDataset, check_sets
from .inference import autocast, autocast_dtype, evaluate, predict_scores
from .run_folder import Run, finished, refuse_other_folder, save_run
from .workspace import device_name, short_path

EVALUATIONS = 50  # on the validation set during a training, at most
VERSION = 6  # raise it when what a training computes changes: finished trainings are then repeated


def fit(
    model: nn.Module,
    train_set: MelDataset,
    validation_set: MelDataset,
    config: TrainingConfig,
    folder: str | Path,
    title: str,
    bar: tqdm | None = None,
) -> Run:
    """Train a copy of `model` on `train_set`, evaluate on `validation_set`, and save the result in `folder` as a Run.

    Binary cross-entropy of each class and Adam (paper, section IV), or Muon. During training, validation clips are
    scored by one crop each; at the end, by all their test-time crops. The saved weights and scores are those of the
    **last** epoch: saving the best would mean choosing by the clips it is evaluated on. A stopped training, called
    again, resumes after the last saved epoch: to the same weights on a CPU, and as near to them as two trainings come
    on a GPU. A finished one is not repeated. Under torchrun, every process calls it and takes its shard of each batch.
    `bar`: the progress bar of a series of trainings. Raises FloatingPointError if the loss, a weight or a score is not
    finite; FileExistsError if `folder` holds anything but a run; and ValueError as `dataset.check_sets` does, or if a
    batch has fewer clips than there are processes or only some machines see its run or checkpoint.
    """
    _check(model, train_set, validation_set, config, title)
    folder, key = Path(folder), _key(model, train_set, validation_set, config)
    done = finished(folder, key)
    _refuse_unshared(folder, done)
    if done:
        leftover = Checkpoint(folder, key, {})
        with contextlib.suppress(ValueError):  # it is not needed
            if distributed.rank() == 0 and leftover.resume()[0]:  # killed before it was removed
                leftover.remove()
        if bar is None:
            print(f"{title}: already trained, with these clips and settings; to repeat it, remove {short_path(folder)}")
        else:
            bar.update(config.steps(len(train_set)))
        return Run(folder)
    refuse_other_folder(folder)
    if bar is None and folder.is_dir():
        print(f"{title}: this will replace the run in {short_path(folder)}")
    trainer = Trainer(model, train_set, config, title)
    checkpoint = Checkpoint(folder, key, trainer.parts)
    history, seconds = checkpoint.resume()
    _refuse_unshared(folder, len(history))
    going_on = f", resuming after epoch {len(history)}" if history else ""

    began = time.perf_counter() - seconds
    step = history[-1]["steps"] if history else 0
    every = math.ceil(math.ceil(trainer.steps / trainer.steps_per_epoch) / EVALUATIONS)
    gpus = [trainer.device] if trainer.device.type == "cuda" else []
    with _titled(title), torch.random.fork_rng(gpus), contextlib.ExitStack() as stack:
        if bar is None:
            print(f"{title}: training {train_set!r}{going_on}")
            bar = stack.enter_context(tqdm(total=trainer.steps, unit="step", file=sys.stdout, mininterval=1))
        bar.set_description(title)
        bar.update(step)
        while step < trainer.steps:
            epoch = len(history) + 1
            losses = trainer.epoch(epoch, step, bar)
            step += len(losses)
            _stop_if_not_finite(losses, step, trainer)
            row = {"epoch": epoch, "steps": step, "loss": losses.mean().item()}
            if epoch % every == 0 or step == trainer.steps:
                row |= evaluate(trainer.model, validation_set, replace(config, test_crops=1))
            history.append(row)
            checkpoint.save(history, time.perf_counter() - began, last=step == trainer.steps)
            bar.set_postfix({name: f"{value:.3f}" for name, value in row.items() if name in ("loss", "LWLRAP")})
        scores = predict_scores(trainer.model, validation_set, config)
    if distributed.rank() == 0:
        record = trainer.record(fingerprint=key, seconds=round(time.perf_counter() - began, 1))
        save_run(folder, trainer.model, record, pd.DataFrame(history), train_set, validation_set, scores)
        checkpoint.remove()
    distributed.barrier()
    return Run(folder)


class Trainer:
    """A model with its optimizers and training state; `epoch` passes once through the training set."""

    def __init__(self, model: nn.Module, train_set: MelDataset, config: TrainingConfig, title: str) -> None:
        self.train_set, self.config, self.title, self.device = train_set, config, title, train_set.device
        torch.backends.cudnn.benchmark = True  # there are few batch shapes
        torch.set_float32_matmul_precision("highest")  # Muon needs it; some containers set TF32
        self.model = copy.deepcopy(model).to(self.device, memory_format=torch.channels_last)
        self.features = frozen_features(self.model, train_set, config)
        self.wrapped = distributed.wrap(self.model if self.features is None else self.model.head)
        self.optimizers = optimizers(self.model, config)
        self.scaler = torch.amp.GradScaler(init_scale=2.0**12, enabled=autocast_dtype(self.device) == torch.float16)
        self.steps_per_epoch = config.steps_per_epoch(len(train_set))
        self.steps = config.steps(len(train_set))
        named = {type(optimizer).__name__: optimizer for optimizer in self.optimizers}
        self.parts = {"model": self.model, "scaler": self.scaler} | named  # that a checkpoint saves

    def epoch(self, number: int, step: int, bar: tqdm) -> Tensor:
        """Train for epoch `number`, from `step` on; return the losses of its steps, (steps,) on the CPU."""
        # What is drawn in an epoch depends on its number alone, so a run resumes as if it had not been stopped.
        generator = torch.Generator().manual_seed(self.config.seed + 1_000_003 * number)
        torch.manual_seed(self.config.seed + 1_000_003 * number + 10_007 * distributed.rank())  # dropout differs
        self.wrapped.train()
        batches = torch.randperm(len(self.train_set), generator=generator).tensor_split(self.steps_per_epoch)
        plain, losses = replace(self.config, **NO_AUGMENTATION), []
        for rows in batches[: self.steps - step]:
            for optimizer in self.optimizers:
                optimizer.param_groups[0]["lr"] = self.learning_rate(step)
            config = self.config if step < self.config.augmented * self.steps else plain
            draw = augment.draw_batch(self.train_set, rows, config, generator)
            losses.append(self.step({name: distributed.shard(values) for name, values in draw.items()}, len(rows)))
            step += 1
            bar.update()
        return distributed.all_reduce(torch.stack(losses)).cpu()

    def step(self, draw: dict[str, Tensor], batch_size: int) -> Tensor:
        """Take one optimizer step on this process's shard of a batch; return its part of the batch's mean loss."""
        x, targets = augment.make_batch(self.train_set, draw, self.config, self.features)
        with autocast(self.device):
            logits = self.wrapped(x)
        loss = bce(logits.float(), targets, self.config.activation).sum() / batch_size
        # The mean of the gradients over the processes is then that over the batch.
        self.update(loss * distributed.world_size())
        return loss.detach()

    def update(self, loss: Tensor) -> None:
        """Backpropagate `loss`, and step each optimizer."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if self.config.schedule == "constant":
            return self.config.learning_rate
        warm_up = max(1, self.steps // 10)
        if step < warm_up:
            return self.config.learning_rate * (step + 1) / warm_up
        return self.config.learning_rate * (1 + math.cos(math.pi * (step - warm_up) / (self.steps - warm_up))) / 2

    def record(self, **more: object) -> dict:
        """Return what made a run, for its settings.json."""
        return {
            "title": self.title,
            "model": self.model.config,
            "pretrained": getattr(self.model, "pretrained", False),
            "config": asdict(self.config),
            "device": device_name(self.device.type),
            "processes": distributed.world_size(),
            "precision": str(autocast_dtype(self.device)),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
        } | more


def optimizers(model: nn.Module, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """Build AdamW (without weight decay, the paper's Adam) and, for "muon", also Muon for convolution weights."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    filters = [parameter for parameter in trained if parameter.ndim == 4] if config.optimizer == "muon" else []
    others = [parameter for parameter in trained if not filters or parameter.ndim != 4]
    adamw = torch.optim.AdamW(others, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    return [adamw, muon.Muon(filters, config.learning_rate)] if filters else [adamw]


def _key(model: nn.Module, train_set: MelDataset, validation_set: MelDataset, config: TrainingConfig) -> str:
    """Return a hash of the weights and of all that a training depends on: with the same, it is the same training."""
    constants = {  # whose names, unlike F, are of several capitals
        name: value for module in (augment, muon) for name, value in vars(module).items() if name[1:].isupper()
    }
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    clips = [list(part.table["fname"] + ":" + part.table["labels"]) for part in (train_set, validation_set)]
    settings = {
        "network": model.config, "frozen": frozen, "config": asdict(config),
        "classes": train_set.classes, "clips": clips, "sources": (train_set.sources, validation_set.sources),
        "constants": constants, "version": VERSION,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(settings).encode())
    for part in (train_set, validation_set):
        digest.update(part.targets.numpy().tobytes())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check(
    model: nn.Module, train_set: MelDataset, validation_set: MelDataset, config: TrainingConfig, title: str
) -> None:
    models.network(model.config)  # raises if nothing could load the run
    try:
        json.dumps([model.config, asdict(config), train_set.classes])
    except TypeError as error:  # of NumPy, say
        remedy = "use Python's own numbers and lists"
        raise ValueError(f"{title}: the run could not be saved ({error}): {remedy}.") from error
    check_sets(train_set, validation_set, title)
    processes = distributed.world_size()
    smallest = config.smallest_batch(len(train_set))
    if smallest < processes:
        remedy = "raise batch_size, or start fewer processes"
        raise ValueError(f"{title}: {processes} processes cannot share a batch of {smallest} clips: {remedy}.")


@contextlib.contextmanager
def _titled(title: str) -> Iterator[None]:
    """Add the title and the remedy to an error of numbers that are not finite."""
    try:
        yield
    except FloatingPointError as error:
        raise FloatingPointError(f"{title}: {error}: lower the learning rate.") from error


def _refuse_unshared(folder: Path, progress: int) -> None:
    if not distributed.agree(progress):
        raise ValueError(f"{folder} is not the same on all machines: let them share the work folder.")


def _stop_if_not_finite(losses: Tensor, step: int, trainer: Trainer) -> None:
    """Raise FloatingPointError if one of an epoch's `losses`, the last at `step`, or a weight is not finite."""
    if losses.isfinite().all() and torch.stack([p.isfinite().all() for p in trainer.model.parameters()]).all():
        return
    finite = int(losses.isfinite().cumprod(0).sum())  # until the first that is not
    what = f"the loss is {losses[finite]}" if finite < len(losses) else "a weight is not finite"
    at = step - len(losses) + min(finite, len(losses) - 1)
    where = f"at step {at + 1} with learning rate {trainer.learning_rate(at):.2g}"
    raise FloatingPointError(f"{what} {where}")


@torch.no_grad()
def frozen_features(model: nn.Module, dataset: MelDataset, config: TrainingConfig) -> Tensor | None:
    """Compute the frozen layers' output for every clip once, if it is the same in every epoch.

    (clips, channels, height, width), on the device; None if no layer is frozen or the crops vary.
    """
    varied = config.crop != "start" or any(getattr(config, name) for name in NO_AUGMENTATION)
    if varied or not getattr(model, "n_frozen", 0):
        return None
    features = []
    for rows in torch.arange(len(dataset)).split(config.batch_size):
        x = dataset.crops(rows, torch.zeros_like(rows), config.n_frames)
        with autocast(dataset.device):
            features.append(model.frozen_features(x.contiguous(memory_format=torch.channels_last)))
    return torch.cat(features)


def bce(logits: Tensor, targets: Tensor, activation: str) -> Tensor:
    """Binary cross-entropy of each class against the rest, averaged over the classes: (clips,) (paper, section IV.A).

    `activation` turns logits into probabilities: "softmax" over the classes (the paper's words) or a "sigmoid" each.
    """
    if activation == "sigmoid":
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
    log_p = F.log_softmax(logits, dim=1)
    itself = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    log_not_p = log_p[:, None].masked_fill(itself, -math.inf).logsumexp(dim=2)  # 1 - p would round to 0
    return -(targets * log_p + (1 - targets) * log_not_p).mean(dim=1)
