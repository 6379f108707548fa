"""Why the Deep CNN and its quick settings are as they are: python -m tests.ablation [--data DIR] [--steps N] [--seeds N]

Each variant changes one thing. Each is trained with every seed, which draws the split, the weights and the crops, and judged by
the LWLRAP of the held-out clips at the last epoch. One process per core, one thread each.
"""

import argparse
import contextlib
import io
import os
import tempfile
from dataclasses import replace

import joblib
import pandas as pd
import torch
from torch import nn

from utils import mel, models, setup, train
from utils.dataset import load_split
from utils.config import QUICK


def three_blocks(model):
    model.blocks = model.blocks[:3]
    model.dense = nn.Linear(model.dense.in_features // 2, model.dense.out_features)


def one_convolution(model):
    model.blocks = nn.Sequential(*(nn.Sequential(*block[:3], block[-1]) for block in model.blocks))


def max_pooling(model):
    for block in model.blocks:
        block[-1] = nn.MaxPool2d(2)


def no_normalisation(model):
    for block in model.blocks:
        block[1] = block[4] = nn.Identity()


VARIANTS = {
    "as it is": (None, {}),
    "three blocks": (three_blocks, {}),
    "one convolution per block": (one_convolution, {}),
    "max pooling in the blocks": (max_pooling, {}),
    "no batch normalisation": (no_normalisation, {}),
    "softmax output": (None, {"output": "softmax"}),
    "always the first 2 s": (None, {"crop": "start", "windows": 1}),
    "masking": (None, {"masking": True}),
    "masking and mixup": (None, {"masking": True, "mixup": True}),
}


def lwlrap(name: str, seed: int, steps: int) -> float:
    torch.set_num_threads(1)
    change, settings = VARIANTS[name]
    preset = replace(QUICK, seed=seed)
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        kit = setup(preset="quick")
        competition = kit.competition
        cache = mel.build_cache(competition.curated, kit.cache, "curated", preset.mel)
        clips = load_split(cache, competition.curated, competition.classes, preset, "cpu")
        torch.manual_seed(seed)
        model = models.DeepCNN(len(competition.classes), preset.width)
        if change:
            change(model)
        run = train.fit(model, *clips, replace(preset.deep_cnn, max_steps=steps, seed=seed, **settings), f"{folder}/run", name)
        return run.history["LWLRAP"].iloc[-1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.ablation", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", help="a folder in Kaggle's or Zenodo's layout (FAT_DATA)")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    if options.data:
        os.environ["FAT_DATA"] = options.data
    setup(preset="quick")
    cases = [(name, seed) for name in VARIANTS for seed in range(options.seeds)]
    results = pd.DataFrame(index=list(VARIANTS), columns=range(options.seeds), dtype=float)
    done = joblib.Parallel(n_jobs=os.cpu_count(), return_as="generator")(joblib.delayed(lwlrap)(*case, options.steps) for case in cases)
    for (name, seed), value in zip(cases, done):
        results.loc[name, seed] = value
        print(f"{name}, seed {seed}: {value:.3f}", flush=True)
    print(results.add_prefix("seed ").assign(mean=results.mean(axis=1)).round(3))


if __name__ == "__main__":
    from tests import ablation  # by its own name, which the processes can import

    ablation.main()
