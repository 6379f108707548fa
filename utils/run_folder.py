"""The run folder: what a training left behind, for everything that comes after it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import nn

from . import data, files, models
from .config import MelConfig, TrainingConfig, attached


@dataclass(frozen=True)
class Run:
    """A finished training: a folder with weights.safetensors, history.csv, training.csv, validation.csv and settings.json.

    `.history` has a row an epoch. `.validation` has the validation clips with their `labels` and, a column a class, their scores
    at the last epoch; `.targets` and `.scores` are the same as arrays (clips, classes). `.record` has settings, classes, versions, times.
    """

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def record(self) -> dict:
        try:
            return json.loads((self.folder / "settings.json").read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.folder} is no run of this kit, its settings cannot be read ({error}): train it again.") from error

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
    def targets(self) -> np.ndarray:
        return data.multi_hot(self.validation, self.classes)

    @property
    def scores(self) -> np.ndarray:
        return self.validation[self.classes].to_numpy()

    @property
    def training(self) -> TrainingConfig:
        return TrainingConfig(**self.record["training"])

    @property
    def mel(self) -> MelConfig:
        return MelConfig(**self.record["mel"])

    def summary(self) -> dict:
        """Model, name and, of the last epoch, its number, validation LWLRAP and top-5."""
        last = self.history.iloc[-1]
        return {"model": self.record["title"], "run": self.name, "epochs": int(last["epoch"])} | last[["LWLRAP", "top-5"]].to_dict()

    def model(self) -> nn.Module:
        """The trained model, on the CPU. Raises ValueError, saying what differs, if the weights are not those of its settings."""
        file = self.folder / "weights.safetensors"
        try:
            with torch.device("meta"):  # takes no memory, whatever the settings say
                model = models.build(self.record["model"])
            with safetensors.safe_open(file, "pt") as weights:
                given = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
        except (KeyError, TypeError, ValueError, RuntimeError, OSError, safetensors.SafetensorError) as error:
            raise ValueError(f"{self.folder} is no run of this kit ({error}): train it again.") from error
        expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        for name in expected | given:
            if expected.get(name) != given.get(name):
                shapes = f"{name} is {given.get(name, 'absent')} and should be {expected.get(name, 'absent')}"
                raise ValueError(f"{file} does not fit {self.record['model']}: {shapes}. Train it again.")
        model.load_state_dict(safetensors.torch.load_file(file), assign=True)
        return model


def find_runs(folder: str | Path) -> list[Run]:
    """The finished runs in `folder`, highest validation LWLRAP first; on Kaggle also those on the same data in attached notebooks' outputs.

    Raises FileNotFoundError if there are none.
    """
    files = [*attached(f"runs/{Path(folder).name}/*/settings.json"), *Path(folder).glob("*/settings.json")]
    found = [file.parent for file in files if file.parent.suffix not in (".part", ".old")]
    if not found:
        raise FileNotFoundError(f"There is no run in {folder}: run 03_cnn first.")
    runs = {place.name: Run(place) for place in found}  # those in `folder` come last, and win
    return sorted(runs.values(), key=lambda run: run.summary()["LWLRAP"], reverse=True)


def save(folder: Path, model: nn.Module, record: dict, history: pd.DataFrame, training: pd.DataFrame, validation: pd.DataFrame) -> Run:
    """Write a Run: it is whole or not there. An earlier one of that name goes. Raises OSError if it cannot be written."""
    with files.atomic_folder(folder, replace=True) as unfinished:
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        (unfinished / "weights.safetensors").write_bytes(safetensors.torch.save(weights))
        history.to_csv(unfinished / "history.csv", index=False)
        training.to_csv(unfinished / "training.csv", index=False)
        validation.to_csv(unfinished / "validation.csv", index=False)
        (unfinished / "settings.json").write_text(json.dumps(record, indent=1))
    return Run(folder)
