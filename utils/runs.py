"""The run folder: what a training left behind, for everything that comes after it."""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
from torch import nn

from . import data, models
from .config import MelSettings, TrainingSettings, attached


@dataclass(frozen=True)
class Run:
    """A finished training: a folder with weights.safetensors, history.csv, validation.csv and settings.json.

    `.history` has a row an epoch. `.validation` has the validation clips with their `labels` and, a column a class, their scores
    at the last epoch; `.truth` and `.scores` are the same as arrays (clips, classes). `.record` has settings, classes, versions, times.
    """

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def record(self) -> dict:
        return json.loads((self.folder / "settings.json").read_text())

    @cached_property
    def history(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "history.csv")

    @cached_property
    def validation(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "validation.csv", dtype={"fname": str, "labels": str})

    @property
    def classes(self) -> list[str]:
        return self.record["classes"]

    @property
    def truth(self) -> np.ndarray:
        return data.multi_hot(self.validation, self.classes)

    @property
    def scores(self) -> np.ndarray:
        return self.validation[self.classes].to_numpy()

    @property
    def training(self) -> TrainingSettings:
        return TrainingSettings(**self.record["training"])

    @property
    def mel(self) -> MelSettings:
        return MelSettings(**self.record["mel"])

    def summary(self) -> dict:
        """Model, name and, of the last epoch, its number, validation LWLRAP and top-5."""
        last = self.history.iloc[-1]
        return {"model": self.record["title"], "run": self.name, "epochs": int(last["epoch"])} | last[["LWLRAP", "top-5"]].to_dict()

    def model(self) -> nn.Module:
        """The trained model, on the CPU."""
        model = models.build(self.record["model"])
        safetensors.torch.load_model(model, self.folder / "weights.safetensors")
        return model


def find_runs(folder: str | Path) -> list[Run]:
    """The finished runs in `folder`, highest validation LWLRAP first; on Kaggle also those on the same data in attached notebooks' outputs.

    Raises FileNotFoundError if there are none.
    """
    files = [*attached(f"runs/{Path(folder).name}/*/settings.json"), *Path(folder).glob("*/settings.json")]
    runs = {file.parent.name: Run(file.parent) for file in files if file.parent.suffix != ".part"}  # those in `folder` last: they win
    if not runs:
        raise FileNotFoundError(f"There is no run in {folder}: run 03_cnn first.")
    return sorted(runs.values(), key=lambda run: run.summary()["LWLRAP"], reverse=True)


def save(folder: Path, model: nn.Module, record: dict, history: pd.DataFrame, validation: pd.DataFrame) -> Run:
    """Write a Run beside its place, then move it there: a run is whole or not there. An earlier one of that name goes."""
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    safetensors.torch.save_model(model, unfinished / "weights.safetensors")
    history.to_csv(unfinished / "history.csv", index=False)
    validation.to_csv(unfinished / "validation.csv", index=False)
    (unfinished / "settings.json").write_text(json.dumps(record, indent=1))
    if folder.exists():
        shutil.rmtree(folder)
    unfinished.rename(folder)
    return Run(folder)
