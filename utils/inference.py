"""Score clips with a model, and evaluate the scores."""

import sys
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from . import data, distributed, metrics
from .augment import rms, tta_crops
from .config import TrainingConfig
from .dataset import MelDataset
from .run_folder import Run

BATCH = 64  # crops scored at once


@lru_cache
def autocast_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the hardware computes in it, else float16 on a GPU, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch cannot tell
    return torch.bfloat16 if device.type == "cpu" and capabilities.get("avx512_bf16") else torch.float32


def autocast(device: torch.device) -> AbstractContextManager:
    """Return the context in which a model computes on `device`."""
    dtype = autocast_dtype(device)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def activate(logits: Tensor, activation: str) -> Tensor:
    """Return class probabilities, (clips, classes)."""
    return logits.sigmoid() if activation == "sigmoid" else logits.softmax(dim=1)


@torch.no_grad()  # not inference_mode: weights that `to` moves in it could not be trained afterwards
def predict_scores(model: nn.Module, dataset: MelDataset, config: TrainingConfig, progress: str = "") -> np.ndarray:
    """Score each clip: probabilities, float32 (clips, classes), a mean over at most `config.test_crops` crops.

    The mean is weighted by the RMS of each crop's mel bands: the faint tail of a sound says less than its attack. Under
    torchrun, every process calls it, takes its shard of the crops, and gets the scores of all clips. The model is moved
    to the device of `dataset` and left in evaluation mode. Raises FloatingPointError if a score is not finite.
    """
    model.to(dataset.device, memory_format=torch.channels_last).eval()
    distributed.broadcast_buffers(model)
    rows, offsets = map(distributed.shard, tta_crops(dataset.lengths, config))
    total = torch.zeros(len(dataset), len(dataset.classes), device=dataset.device)
    weights = total.new_zeros(len(dataset), 1)
    batches = [(rows[i : i + BATCH], offsets[i : i + BATCH]) for i in range(0, len(rows), BATCH)]
    bar = tqdm(batches, progress, unit="batch", file=sys.stdout, mininterval=1, delay=1, disable=not progress)
    with autocast(dataset.device):  # around all batches, for it casts the weights once
        for rows, offsets in bar:
            x = dataset.crops(rows, offsets, config.n_frames)
            logits = model(x.contiguous(memory_format=torch.channels_last))
            clips, weight = dataset.to_device(rows), rms(x)[:, None]
            total.index_add_(0, clips, weight * activate(logits.float(), config.activation))
            weights.index_add_(0, clips, weight)
    mean = distributed.all_reduce(total) / distributed.all_reduce(weights)
    if not mean.isfinite().all():
        raise FloatingPointError("the scores of the model are not finite")
    return mean.clamp(max=1).cpu().numpy()  # the two sums round differently


def score_run(run: Run, dataset: MelDataset) -> np.ndarray:
    """Score clips with the run's model, or the blend of its folds' models, as `predict_scores` does.

    Raises ValueError if it was trained on other classes or mel settings.
    """
    if run.classes != dataset.classes:
        raise ValueError(f"{run.name} was trained on other classes, or in another order: train it on this data.")
    if run.mel != dataset.mel:
        raise ValueError(
            f"{run.name} was trained on {run.mel}, not on {dataset.mel}: rebuild the cache with the run's settings."
        )
    return blend([predict_scores(model, dataset, run.config, progress=run.name) for model in run.models()])


def blend(scores: list[np.ndarray]) -> np.ndarray:
    """Return the geometric mean of models' scores, (clips, classes) in 0 to 1. Raises ValueError if there are none."""
    if not scores:
        raise ValueError("there are no scores to average: choose at least one run.")
    if len(scores) == 1:
        return scores[0]
    return np.exp(np.log(np.clip(scores, np.finfo(np.float32).tiny, 1)).mean(axis=0)).astype(np.float32)


def evaluate(model: nn.Module, dataset: MelDataset, config: TrainingConfig) -> dict[str, float]:
    """Compute the model's loss, LWLRAP and top-5 accuracy on a dataset with labels."""
    scores = predict_scores(model, dataset, config)
    loss = F.binary_cross_entropy(torch.from_numpy(scores).clamp(1e-6, 1 - 1e-6), dataset.targets).item()
    first_label = data.first_label(dataset.table, dataset.classes)
    return {"validation loss": loss} | metrics.summary(dataset.targets.numpy(), first_label, scores)
