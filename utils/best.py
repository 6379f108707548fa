"""The recipe of the model `best`: a training per fold of the curated clips, joined by noisy clips it agrees with."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn
from tqdm import tqdm

from . import files, inference, launch, metrics, splits, train
from .config import NO_AUGMENTATION, Preset, TrainingConfig
from .dataset import MelDataset, refuse_mismatch
from .models import MODELS
from .run_folder import Run, refuse_other_folder

NAME = "best"
ABLATION = {  # the recipe, part by part: each row's changes to the config before it
    "random crops": {"optimizer": "adam", **NO_AUGMENTATION},
    "+ mixed in power": {"mix_probability": 0.5},
    "+ resized": {"resize_probability": 0.4},
    "+ SpecAugment": {"spec_augment_probability": 0.5},
    "+ Muon": {"optimizer": "muon"},
    "+ FilterAugment": {"filter_probability": 1.0},
}
ABLATION_STEPS = 600
STAGES = ["-curated", ""]  # suffixes of a fold's run folders, one per stage, if there is a noisy set
NOISY = "noisy/"  # prefix of the names of noisy clips, which may be those of curated ones


def fit(
    curated: MelDataset,
    noisy: MelDataset | None,
    preset: Preset,
    folder: str | Path,
    config: TrainingConfig | None = None,
    **options: object,
) -> Run:
    """Train `best` fold by fold, and save the result in `folder` as one Run of all folds.

    `config` and the network's `options` (as `width=48`) override the preset's.

    Without a noisy set, each model is trained once; with one, in the stages of `fit_stage`. Each curated clip is scored
    by the model not trained on it. Called again, it resumes, and finished trainings are not repeated. Raises
    FileExistsError if `folder` holds anything but a run, and ValueError if `noisy` has other classes or mel settings.
    """
    folder, entry = Path(folder), MODELS[NAME]
    if not any(folder.glob("fold[0-9]*")):
        refuse_other_folder(folder)
    if noisy is not None:
        refuse_mismatch(curated, noisy)
    config = config or entry.config(preset.name)
    steps = config.steps(len(curated))  # of each fold, over its stages
    config = replace(config, min_steps=steps, max_steps=steps)
    fold = splits.folds(curated.table, preset.n_folds, preset.seed)
    names = [f"fold{number}" for number in range(fold.max() + 1)]
    chains = []
    for number, name in enumerate(names):
        train_set, validation_set = curated.subset(fold != number), curated.subset(fold == number)
        model = entry.build(len(curated.classes), preset.name, preset.seed + number, **options)
        training = (model, train_set, validation_set, config, folder / name, f"{entry.title}, {name}")
        # The first stage does not need the noisy clips, which take up GPU memory.
        chains.append([training] if noisy is None else [(None, *training), (noisy, *training)])
    fit_one, stages = (train.fit, [""]) if noisy is None else (fit_stage, STAGES)
    launch.train_in_parallel(fit_one, chains, len(names) * steps, curated.device)
    return _save(folder, names, stages, config, curated)


def fit_stage(
    noisy: MelDataset | None,
    model: nn.Module,
    train_set: MelDataset,
    validation_set: MelDataset,
    config: TrainingConfig,
    folder: Path,
    title: str,
    bar: tqdm,
) -> Run:
    """Train the model of a fold for one of the `STAGES`: the second if there are noisy clips, else the first.

    The first stage, a third of the steps of `config`, uses only the curated clips of `train_set`. The second continues
    from its weights with a new learning rate schedule. It adds the noisy clips whose labels the first model, which has
    seen none of them, ranks above all other classes, and which belong to no group of `validation_set`.
    """
    folders = [folder.with_name(folder.name + ending) for ending in STAGES]
    stage, steps = int(noisy is not None), max(1, config.max_steps // 3)
    if stage:
        steps = max(1, config.max_steps - steps)  # those that the first stage left
        first = Run(folders[0])
        [model] = first.models()
        noisy = noisy.subset(splits.apart(noisy.table, validation_set.table))
        noisy.table["fname"] = NOISY + noisy.table["fname"]
        train_set = train_set.join(noisy.subset(agreeing(first, noisy)))
    config = replace(config, min_steps=steps, max_steps=steps)
    return train.fit(model, train_set, validation_set, config, folders[stage], f"{title}{STAGES[stage]}", bar)


def ablation(curated: MelDataset, preset: Preset, folder: str | Path) -> pd.DataFrame:
    """Run a cumulative ablation of `best` without noisy clips: LWLRAP, and the gain over the row above, with intervals.

    Each row adds a part. It is a training of at most 600 steps on the validation split: a first look, with wide
    intervals. `python -m tests.ablation` uses all folds.
    """
    entry, chains, folder = MODELS[NAME], [], Path(folder)
    train_set, validation_set = (curated.subset(rows) for rows in splits.split(curated.table, preset.seed))
    config = entry.config(preset.name)
    steps = min(ABLATION_STEPS, config.steps(len(train_set)))
    model = entry.build(len(curated.classes), preset.name, preset.seed)
    for name, change in ABLATION.items():
        config = replace(config, min_steps=steps, max_steps=steps, **change)
        chains.append([(model, train_set, validation_set, config, folder / name, name)])
    launch.train_in_parallel(train.fit, chains, len(ABLATION) * steps, curated.device)
    table, above = [], None
    for name in ABLATION:
        run = Run(folder / name)
        table.append({"recipe": name} | metrics.lwlrap_with_interval(run.targets, run.scores, above))
        above = run.scores
    return pd.DataFrame(table).set_index("recipe")


def agreeing(run: Run, noisy: MelDataset) -> np.ndarray:
    """Return the rows of noisy clips whose labels the run's model, not trained on them, ranks above all other classes.

    Their names are saved in the run's folder: recomputed on another machine, a near tie could flip.
    """
    key = hashlib.sha256("\n".join(noisy.table["fname"] + ":" + noisy.table["labels"]).encode()).hexdigest()[:12]
    file = run.folder / f"{noisy.sources[0]}-{key}.csv"
    if not file.exists():
        scores, targets = inference.predict_scores(run.models()[0], noisy, run.config), noisy.targets.numpy() > 0
        lowest_label = np.where(targets, scores, np.inf).min(axis=1)
        agree = lowest_label > np.where(targets, -np.inf, scores).max(axis=1)
        with files.atomic_file(file) as unfinished:
            noisy.table.loc[agree, ["fname"]].to_csv(unfinished, index=False)
    agree = pd.read_csv(file, dtype=str, keep_default_na=False)["fname"]
    return np.flatnonzero(noisy.table["fname"].isin(agree))


def _save(folder: Path, names: list[str], stages: list[str], config: TrainingConfig, curated: MelDataset) -> Run:
    """Write the run of all folds: the files beside the folders of their runs."""
    runs = [Run(folder / name) for name in names]
    seconds = sum(Run(folder / f"{name}{stage}").record["seconds"] for name in names for stage in stages)
    scored = pd.concat([run.validation for run in runs]).set_index("fname").loc[curated.table["fname"]]
    record = runs[0].record | {"title": MODELS[NAME].title, "config": asdict(config)}
    keys = {run.name: run.record["fingerprint"] for run in runs}
    record |= {"fingerprint": None, "folds": keys, "stages": stages, "seconds": seconds}
    for name, table in (("validation_scores", scored.reset_index()), ("history", _history(folder, names[0], stages))):
        with files.atomic_file(folder / f"{name}.csv") as unfinished:
            table.to_csv(unfinished, index=False)
    with files.atomic_file(folder / "settings.json") as unfinished:
        unfinished.write_text(json.dumps(record, indent=1))
    return Run(folder)


def histories(run: Run) -> dict[str, pd.DataFrame]:
    """Return the history of each fold over all stages, by fold name."""
    return {name: _history(run.folder, name, run.record["stages"]) for name in run.record["folds"]}


def _history(folder: Path, name: str, stages: list[str]) -> pd.DataFrame:
    tables, before = [], 0
    for number, stage in enumerate(stages, 1):
        table = Run(folder / f"{name}{stage}").history.assign(stage=number)
        table[["epoch", "steps"]] += before
        before = table[["epoch", "steps"]].iloc[-1]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def summary(run: Run) -> pd.DataFrame:
    """Return a row per fold: the curated and noisy clips it was trained on, and LWLRAP and top-5 on its own clips."""
    rows = []
    for fold in run.folds():
        noisy = fold.train_clips["fname"].str.startswith(NOISY).sum()
        clips = {"curated clips": len(fold.train_clips) - noisy, "noisy clips": noisy}
        scores = fold.summary()
        rows.append({"fold": fold.name} | clips | {key: scores[key] for key in ("LWLRAP", "top-5")})
    return pd.DataFrame(rows).set_index("fold")
