"""Ablation of the recipe: python -m tests.ablation [ROW ...] [--data DIR] [--steps N] [--seeds N] [--list]

Each row is trained for every fold of every seed, which draws the folds, the weights and the crops, and evaluated by its
out-of-fold LWLRAP: each clip is scored by the one model of that row and seed not trained on it, after its last step.
Its gain, paired by clip, is over the row above in the recipe or, for other rows, over the recipe, if that is trained.
One process per core, one thread each. Finished trainings are kept in the work folder and skipped in a rerun, so rename
a row after changing its code.
"""

import argparse
import contextlib
import io
import operator
import os
from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate, product
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from utils import best, mel_cache, metrics, models, setup, splits, train
from utils.config import QUICK
from utils.dataset import MelDataset, load_labeled
from utils.workspace import Workspace

RECIPES = dict(zip(best.ABLATION, accumulate(best.ABLATION.values(), operator.or_)))
*_, RECIPE = RECIPES.values()
CROSS_ENTROPY = train.bce


def lsep(logits, targets, activation):
    """Pairwise ranking loss (LSEP) beside binary cross-entropy, weighted to be of similar size."""
    # Source: Li, Song and Luo 2017, Improving Pairwise Ranking for Multi-label Image Classification.
    negatives = logits.masked_fill(targets > 0, -1e4).logsumexp(dim=1)
    positives = (-logits).masked_fill(targets == 0, -1e4).logsumexp(dim=1)
    return 2.5 * CROSS_ENTROPY(logits, targets, "sigmoid") + 0.5 * F.softplus(negatives + positives)


def one_convolution(model):
    for block in model.blocks:
        block.convolutions = block.convolutions[:2]


def max_pooling(model):
    for block in model.blocks[:-1]:
        block.end[-1] = nn.MaxPool2d(2)


class Frequency(nn.Module):
    def forward(self, x):
        bands = torch.linspace(-1, 1, x.shape[2]).view(1, 1, -1, 1).expand_as(x)
        return torch.cat([x, bands], dim=1)


def frequency_channel(model):
    first = model.stem[0]
    twice = nn.Conv2d(2, first.out_channels, 5, stride=2, padding=2, bias=False)
    model.stem = nn.Sequential(Frequency(), twice, *model.stem[1:])


def no_normalization(model):
    for block in model.blocks:
        block.convolutions[1] = block.convolutions[4] = block.shortcut[1] = nn.Identity()


# What a row changes: the network's options, the training config, and the built model (`change`), `loss` or `noisy`.
ROWS = {
    **{name: ({}, config, {}) for name, config in RECIPES.items()},  # the last is the recipe of quick
    "+ noisy clips that agree, two thirds of the steps": ({}, RECIPE, {"noisy": True}),
    "no shortcuts": ({"residual": False}, RECIPE, {}),
    "standardized instead of peak-normalized": ({"peak": False}, RECIPE, {}),
    "neither": ({"residual": False, "peak": False}, RECIPE, {}),
    "no stem, width 16": ({"stem": 0, "width": 16}, RECIPE, {}),
    "width 48": ({"stem": 24, "width": 48}, RECIPE, {}),
    "crops of 4 s": ({}, RECIPE | {"n_frames": 256}, {}),
    "LSEP beside cross-entropy": ({}, RECIPE, {"loss": lsep}),
    "frequency as a second channel": ({}, RECIPE, {"change": frequency_channel}),
    "softmax": ({}, RECIPE | {"activation": "softmax"}, {}),
    "always the first 2 s": ({}, RECIPE | {"crop": "start", "test_crops": 1}, {}),
    "one convolution per block": ({}, RECIPE, {"change": one_convolution}),
    "max pooling in the blocks": ({}, RECIPE, {"change": max_pooling}),
    "no batch normalization": ({}, RECIPE, {"change": no_normalization}),
}


COLUMNS = ["row", "seed", "LWLRAP", "low", "high", "gain", "gain low", "gain high"]


def compared_with(name: str, rows: Iterable[str]) -> str | None:
    """Return which of `rows` the row `name` is compared with: the last above it in the recipe, or its last."""
    parts = list(RECIPES)
    above = parts[: parts.index(name)] if name in parts else parts[-1:]
    return next((row for row in reversed(above) if row in rows), None)


def datasets(kit: Workspace) -> tuple[MelDataset, MelDataset | None]:
    """Return the curated set and the noisy one, if any."""
    competition = kit.competition
    cache = mel_cache.build(competition.curated, kit.cache, "curated", kit.preset.mel)
    curated = load_labeled(cache, competition.curated, competition.classes, kit.preset, "cpu")
    if not len(competition.noisy):
        return curated, None
    cache = mel_cache.build(competition.noisy, kit.cache, "noisy", kit.preset.mel)
    return curated, MelDataset(cache, cache.readable(competition.noisy), competition.classes)


def train_fold(name: str, steps: int, seed: int, number: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Train row `name` on all folds but this one; return the row numbers and scores of its clips."""
    torch.set_num_threads(1)
    options, config, other = ROWS[name]
    with contextlib.redirect_stdout(io.StringIO()):
        curated, noisy = datasets(setup(preset="quick"))
        fold = splits.folds(curated.table, QUICK.n_folds, seed)
        train_set, validation_set = curated.subset(fold != number), curated.subset(fold == number)
        entry = models.MODELS["deep_cnn"]
        config = replace(entry.config("quick"), min_steps=steps, max_steps=steps, seed=seed, **config)
        model = entry.build(len(curated.classes), "quick", seed, **options)
        torch.manual_seed(seed)  # for the layers that a change adds
        if "change" in other:
            other["change"](model)
        train.bce = other.get("loss", CROSS_ENTROPY)
        training = model, train_set, validation_set, config, folder / f"{number}", name, tqdm(disable=True)
        if "noisy" in other:
            for joining in (None, noisy):
                run = best.fit_stage(joining, *training)
        else:
            run = train.fit(*training)
    return np.flatnonzero(fold == number), run.scores


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.ablation", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "rows", nargs="*", type=int, metavar="ROW", help="numbers of the rows to train, from 0 (default: all)"
    )
    parser.add_argument("--data", help="data folder, in Kaggle's or Zenodo's layout (FAT_DATA)")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folds", type=int, help="folds to train for each seed (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--list", action="store_true", help="list the rows and exit")
    options = parser.parse_args()
    if options.list:
        return print(*(f"{number:2} {name}" for number, name in enumerate(ROWS)), sep="\n")
    if options.rows and not 0 <= min(options.rows) <= max(options.rows) < len(ROWS):
        parser.error(f"rows are numbered from 0 to {len(ROWS) - 1}; --list shows them")
    if options.data:
        os.environ["FAT_DATA"] = str(Path(options.data).resolve())
    kit = setup(preset="quick")
    curated, noisy = datasets(kit)
    names = [list(ROWS)[number] for number in sorted(set(options.rows))] or list(ROWS)
    targets, scored = curated.targets.numpy(), {seed: {} for seed in range(options.seeds)}
    for name, seed in product(names, range(options.seeds)):
        if "noisy" in ROWS[name][2] and noisy is None:
            print(f"{name}: this data has no noisy set")
            continue
        folder = kit.folder / "ablation" / kit.competition.folder.name / f"{options.steps}-{seed}" / name
        numbers = range(splits.folds(curated.table, QUICK.n_folds, seed).max() + 1)[: options.folds]
        cases = [joblib.delayed(train_fold)(name, options.steps, seed, number, folder) for number in numbers]
        rows, scores = map(np.concatenate, zip(*joblib.Parallel(n_jobs=options.jobs)(cases)))
        row = metrics.lwlrap_with_interval(targets[rows], scores, scored[seed].get(compared_with(name, scored[seed])))
        scored[seed][name] = scores  # of the same clips in the same order for every row
        table = pd.DataFrame([{"row": f"{name:{max(map(len, names))}}", "seed": seed} | row], columns=COLUMNS)
        header = sum(map(len, scored.values())) == 1
        print(table.to_string(index=False, header=header, na_rep="", float_format="{:9.3f}".format), flush=True)


if __name__ == "__main__":
    from tests import ablation  # processes cannot import __main__

    ablation.main()
