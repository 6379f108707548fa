"""MelDataset as tensors: what a model is trained on and asked about."""

import copy

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from . import augment, data
from .config import Preset
from .mel import Cache, format_unreadable


class MelDataset:
    """MelDataset of a cache for a model on `device`: `.table` as given, and `.targets` (clips, classes) if it has labels.

    `.frames`, those of the whole cache, lie on the device as one tensor if they take at most half of its free memory. If not, they stay
    in the memory-mapped file, and what a batch needs of them is sent through pinned memory. `.home` is the device that
    they and the index (`.starts`, `.lengths`, `.floors`) are on; rows and offsets are drawn there.
    """

    def __init__(self, cache: Cache, table: pd.DataFrame, classes: list[str], device: str | torch.device = "cpu") -> None:
        self.table, self.classes, self.mel = table, classes, cache.settings
        self.device = torch.empty(0, device=device).device  # "cuda" by its number
        clips = cache.clips.iloc[cache.rows(table["fname"])]
        frames = torch.from_numpy(cache.frames)
        self.frames = frames.to(device) if _fits(frames, self.device) else frames
        self.home = self.frames.device
        self.starts = torch.tensor(clips["start"].to_numpy(), device=self.home)
        self.lengths = torch.tensor(clips["length"].to_numpy(), device=self.home)
        self.floors = torch.tensor(clips["pad_value"].to_numpy(), device=self.home, dtype=frames.dtype)
        self.targets = torch.tensor(data.multi_hot(table, classes), device=self.home) if "labels" in table else None

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        place = f"{'on' if self.home == self.device else 'streamed to'} the {'CPU' if self.device.type == 'cpu' else 'GPU'}"
        return f"{len(self)} clips of a cache of {self.frames.nbytes / 1e6:,.0f} MB, {place}"

    def subset(self, rows: np.ndarray) -> "MelDataset":
        """The clips of these rows, over the same frames."""
        part = copy.copy(self)
        part.table = self.table.iloc[rows].reset_index(drop=True)
        for name in ("starts", "lengths", "floors", "targets"):
            if (tensor := getattr(self, name)) is not None:
                setattr(part, name, tensor[torch.as_tensor(rows, device=self.home)])
        return part

    def crop(self, rows: Tensor, offsets: Tensor, n_frames: int) -> Tensor:
        """A window of each of the clips `rows`, beginning at frame `offsets`: dB on the device, float32 (clips, 1, n_mels, n_frames)."""
        window = augment.crop(self.frames, self.starts[rows], self.lengths[rows], self.floors[rows], offsets, n_frames)
        return self.send(window).float().transpose(1, 2)[:, None]

    def send(self, tensor: Tensor) -> Tensor:
        """`tensor`, which is at home, on the device. The copy, where there is one, runs while the device computes."""
        if self.home == self.device:
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _fits(frames: Tensor, device: torch.device) -> bool:
    """Whether `frames` leave half of the device's free memory to the model."""
    return device.type != "cuda" or frames.nbytes <= torch.cuda.mem_get_info(device)[0] / 2


def load_split(cache: Cache, table: pd.DataFrame, classes: list[str], preset: Preset, device: str | torch.device) -> tuple[MelDataset, MelDataset]:
    """Training and validation clips for a model on `device`: the same split for every model of a preset, known bad clips repaired.

    MelDataset that cannot be read are left out if `preset.drop_unreadable`; if not, ValueError lists them.
    """
    table = data.correct_labels(table)
    unreadable = cache.unreadable[cache.unreadable["fname"].isin(table["fname"])]
    if len(unreadable):
        some = f"{len(unreadable)} of {len(table)} training clips cannot be read"
        if not preset.drop_unreadable:
            raise ValueError(
                f"{some}:\n{format_unreadable(unreadable)}\nReplace the files and run 02_preprocessing again, "
                "or set drop_unreadable to True in utils/config.py to train without them."
            )
        print(f"{some} and are left out")
        table = cache.readable(table)
    clips = MelDataset(cache, table, classes, device)
    training, validation = data.split(table, preset.validation_fraction, preset.seed)
    return clips.subset(training), clips.subset(validation)
