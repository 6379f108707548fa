"""The run folder: what a training saves for everything that follows."""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import nn

from . import data, files, metrics, models
from .config import MelConfig, TrainingConfig
from .dataset import MelDataset

LEFT_BY_SYSTEMS = re.compile(r"\.(DS_Store|ipynb_checkpoints|_.*|(nfs|fuse_hidden|smb).*)")  # names in an empty folder
FORMAT = 4  # version of the folder: its files, and the names of their columns and keys


class Run:
    """A finished training: a folder with weights, history, training clips, validation scores and settings.

    The files are weights.safetensors, history.csv, train_clips.csv, validation_scores.csv and settings.json. A run of
    several folds has such a folder for each instead of weights and train_clips.csv; its `.validation` then has all
    clips, each scored out of fold, by the one model not trained on it, and its `.history` is that of the first fold. A
    run of `baselines` has only scores: no weights, and an empty `.history`.

    `.history` has a row per epoch; its LWLRAP and top-5 are of one crop per clip. `.validation` has the validation
    clips with their `labels` and, a column per class, the finished model's scores over all crops; `.targets`
    and `.scores` are the same as arrays (clips, classes). `.record` has configs, classes, versions, times.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def record(self) -> dict:
        try:
            record = json.loads((self.folder / "settings.json").read_text())
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.folder} is not a run of this kit: its settings cannot be read ({error}). Remove it and retrain."
            ) from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise ValueError(f"{self.folder} was made by another version of this kit: train it again, or remove it.")
        for name, key in record.get("folds", {}).items():
            if not finished(self.folder / name, key):
                what = "has been retrained since" if (self.folder / name).is_dir() else "is missing"
                raise ValueError(f"{self.folder}: {name} {what}: run 06_beyond_the_paper again.")
        return record

    @cached_property
    def history(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "history.csv")

    @cached_property
    def validation(self) -> pd.DataFrame:
        text = {"fname": str, "labels": str}
        scores = pd.read_csv(self.folder / "validation_scores.csv", dtype=text, keep_default_na=False)
        return scores.copy()  # in one piece: pandas warns of tables of over a hundred

    @cached_property
    def train_clips(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "train_clips.csv", dtype=str, keep_default_na=False)

    @property
    def classes(self) -> list[str]:
        return self.record["classes"]

    @property
    def targets(self) -> np.ndarray:
        return self.on()[0]

    @property
    def scores(self) -> np.ndarray:
        return self.on()[1]

    @property
    def pretrained(self) -> bool:
        """Whether it started from ImageNet weights, which the competition's rules forbid."""
        return self.record["pretrained"]

    @property
    def has_weights(self) -> bool:
        """Whether it can score other clips; a baseline cannot."""
        return "model" in self.record

    def require_weights(self) -> None:
        """Raise ValueError if it is a baseline, which cannot score other clips."""
        if not self.has_weights:
            raise ValueError(f"{self.name} is a baseline, which has only scores: choose a run of a network.")

    @property
    def network(self) -> Callable[[], nn.Module]:
        """What builds its network, untrained. Raises ValueError if this version does not have it."""
        return models.network(self.record["model"])

    @property
    def config(self) -> TrainingConfig:
        return self._settings("config", TrainingConfig)

    @property
    def mel(self) -> MelConfig:
        return self._settings("mel", MelConfig)

    def _settings(self, name: str, kind: type) -> TrainingConfig | MelConfig:
        try:
            return kind(**self.record[name])
        except (TypeError, ValueError) as error:  # another version may have had other settings
            raise ValueError(f"{self.folder} has settings unknown here ({error}): retrain it, or remove it.") from error

    def folds(self) -> list["Run"]:
        """Return the run of each fold; empty for a single training."""
        return [Run(self.folder / name) for name in self.record.get("folds", [])]

    def on(self, fnames: Collection[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return targets and scores, (clips, classes), of the validation clips `fnames`, sorted; None: of all."""
        clips = self._validation_of(fnames)
        return data.multi_hot(clips, self.classes), clips[self.classes].to_numpy()

    def _validation_of(self, fnames: Collection[str] | None) -> pd.DataFrame:
        if fnames is None:
            return self.validation
        return self.validation.set_index("fname").loc[sorted(fnames)].reset_index()  # in the same order for every run

    def summary(self, fnames: Collection[str] | None = None) -> dict:
        """Return model, name, epochs, and LWLRAP and top-5 on the validation clips, or on those in `fnames`."""
        targets, scores = self.on(fnames)
        first_label = data.first_label(self._validation_of(fnames), self.classes)
        row = {"model": self.record["title"], "run": self.name, "epochs": len(self.history)}
        return row | metrics.summary(targets, first_label, scores)

    def cost(self) -> dict[str, float]:
        """Return parameters, million multiply-accumulates (MMAC) per crop, and training seconds; of folds, the sum.

        A baseline has no parameters (NaN), and its seconds include the features.
        """
        network = {"parameters": np.nan, "MMAC": np.nan}
        if self.has_weights:
            network = models.cost(self.record["model"], self.mel.n_mels, self.config.n_frames)
            network = {name: value * len(self.folds() or [self]) for name, value in network.items()}
        return network | {"seconds": self.record["seconds"]}

    def models(self) -> list[nn.Module]:
        """Load the trained models on the CPU: one, or one per fold.

        Raises ValueError if there are none, or, saying what differs, if the weights do not match the settings.
        """
        self.require_weights()
        if folds := self.folds():
            return [model for fold in folds for model in fold.models()]
        file = self.folder / "weights.safetensors"
        try:
            with torch.device("meta"):  # takes no memory, whatever the settings say
                model = self.network()
            # Read whole: a mapped file could not be replaced on Windows while the model lives.
            model.load_state_dict(safetensors.torch.load(file.read_bytes()), assign=True)
        except (KeyError, TypeError, ValueError, RuntimeError, OSError, safetensors.SafetensorError) as error:
            detail = " ".join(str(error).split())[:300]
            raise ValueError(f"{self.folder} is not a run of this kit ({detail}): remove it and retrain.") from error
        model.pretrained = self.pretrained  # so is what is trained further
        return [model]


def finished(folder: Path, key: str) -> bool:
    """Whether `folder` holds the finished run of the training with this fingerprint."""
    try:
        return Run(folder).record.get("fingerprint") == key
    except ValueError:  # there is none, or it is from another version: it will be trained
        return False


def refuse_other_folder(folder: Path) -> None:
    """Raise FileExistsError if there are files in `folder`, but no run: a training would delete them."""
    others = folder.is_dir() and any(not LEFT_BY_SYSTEMS.fullmatch(path.name) for path in folder.iterdir())
    if others and not (folder / "validation_scores.csv").is_file():
        raise FileExistsError(f"{folder} holds other files than a run: choose another folder, or remove it.")


def save_run(
    folder: Path,
    model: nn.Module | None,
    record: dict,
    history: pd.DataFrame,
    train_set: MelDataset,
    validation_set: MelDataset,
    scores: np.ndarray,
) -> Run:
    """Write a Run, complete or not at all, replacing an earlier one. Raises OSError if it cannot be written.

    `model`: None for a baseline. `scores`, (clips, classes): of the clips of `validation_set`.
    """
    clips = validation_set.table[["fname", "labels"]]
    tables = {
        "history": history,
        "train_clips": train_set.table[["fname", "labels"]],
        "validation_scores": clips.join(pd.DataFrame(scores, columns=validation_set.classes)),
    }
    record = {"format": FORMAT, "mel": asdict(train_set.mel), "classes": train_set.classes} | record
    with files.atomic_folder(folder, replace=True) as unfinished:
        if model is not None:
            weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
            (unfinished / "weights.safetensors").write_bytes(safetensors.torch.save(weights))
        for name, table in tables.items():
            table.to_csv(unfinished / f"{name}.csv", index=False)
        (unfinished / "settings.json").write_text(json.dumps(record, indent=1))
    return Run(folder)
