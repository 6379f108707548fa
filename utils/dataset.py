"""Spectrograms of clips on a device, for training and scoring."""

import copy
import warnings
import weakref

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from . import data, splits
from .config import Preset
from .mel_cache import Cache, format_report

processes_per_gpu = 1  # how many share a GPU's memory; set by `launch.train_in_parallel`
_placed = weakref.WeakKeyDictionary()  # cache -> its frames on the device, shared by datasets pickled together


class MelDataset:
    """Clips of a cache for a model on `device`. Batches are made by `augment`, without a DataLoader.

    `.table` has rows numbered from 0 and the cache's `content_hash`; `.targets` is (clips, classes), or None without
    labels. `.frames`, those of the whole cache, are one tensor on the device if they take at most half of the free
    memory, or of this process's share. Otherwise they stay in the memory-mapped file, and what a batch needs is sent
    through pinned memory. All else (`.starts`, `.lengths`, `.pad_values`, `.targets`, a value or row per clip) stays on
    the CPU.
    """

    def __init__(
        self, cache: Cache, table: pd.DataFrame, classes: list[str], device: str | torch.device = "cpu"
    ) -> None:
        table = table.reset_index(drop=True)
        self.cache, self.table, self.classes, self.mel = cache, table, classes, cache.settings
        self.sources = (cache.folder.name,)  # which identify the content of the clips
        self.device = torch.empty(0, device=device).device  # "cuda" with its index
        clips = cache.clips.iloc[cache.rows(table["fname"])]
        self.table[splits.CONTENT] = clips[splits.CONTENT].to_numpy()
        frames = _tensor(cache.frames)
        self.frames = _place(frames, self.device)
        self.starts = torch.tensor(clips["start"].to_numpy())
        self.lengths = torch.tensor(clips["length"].to_numpy())
        self.pad_values = torch.tensor(clips["pad_value"].to_numpy(), dtype=frames.dtype)
        self.targets = torch.tensor(data.multi_hot(table, classes)) if "labels" in table else None

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        place = "on" if self.frames.device == self.device else "streamed to"
        device = "GPU" if self.device.type == "cuda" else "CPU"
        return f"{len(self)} clips of a cache of {self.frames.nbytes / 1e6:,.0f} MB, {place} the {device}"

    def __copy__(self) -> "MelDataset":  # by default, copy uses __getstate__, which drops the frames
        part = object.__new__(MelDataset)
        part.__dict__.update(self.__dict__)
        return part

    def __getstate__(self) -> dict:
        """Pickle for another process, which reads the frames of a single cache from its file."""
        return self.__dict__ | {"frames": None if len(self.sources) == 1 else self.frames.cpu()}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.device = torch.empty(0, device=self.device.type).device  # this process's, of several GPUs
        if self.frames is not None:
            self.frames = _place(self.frames, self.device)
            return
        if self.cache not in _placed:
            _placed[self.cache] = _place(_tensor(self.cache.frames), self.device)
        self.frames = _placed[self.cache]

    def subset(self, rows: np.ndarray) -> "MelDataset":
        """Return the clips of these rows (numbers, or a mask), sharing the frames."""
        part = copy.copy(self)
        part.table = self.table.iloc[rows].reset_index(drop=True)
        for name in ("starts", "lengths", "pad_values", "targets"):
            if (tensor := getattr(self, name)) is not None:
                setattr(part, name, tensor[torch.as_tensor(rows)])
        return part

    def join(self, other: "MelDataset") -> "MelDataset":
        """Return the clips of both, with a copy of the frames that they need.

        Raises ValueError if their classes, mel settings or devices differ.
        """
        refuse_mismatch(self, other)
        joined = copy.copy(self)
        joined.sources = self.sources + other.sources
        joined.table = pd.concat([self.table, other.table], ignore_index=True)
        for name in ("targets", "lengths", "pad_values"):
            setattr(joined, name, torch.cat([getattr(self, name), getattr(other, name)]))
        ends = joined.lengths.cumsum(0)
        joined.starts = ends - joined.lengths
        n_mels, dtype = self.frames.shape[1], self.frames.dtype
        device = _device_with_room(int(ends[-1]) * n_mels * dtype.itemsize, self.device)
        joined.frames = torch.empty(int(ends[-1]), n_mels, dtype=dtype, device=device)
        parts = [(part.frames, start) for part in (self, other) for start in part.starts.tolist()]
        for (source, start), end, length in zip(parts, ends.tolist(), joined.lengths.tolist()):
            joined.frames[end - length : end] = source[start : start + length]
        return joined

    def crops(self, rows: Tensor, offsets: Tensor, n_frames: int) -> Tensor:
        """Cut `n_frames` of the clips `rows` from frame `offsets` on: dB on the device, (clips, 1, n_mels, n_frames).

        `rows` and `offsets`, on the CPU, have shape (clips,); the result is float32. Frames beyond a clip's ends have
        its pad value, as if its samples were padded with zeros.
        """
        position = offsets[:, None] + torch.arange(n_frames)
        inside = (position >= 0) & (position < self.lengths[rows, None])
        index = torch.where(inside, self.starts[rows, None] + position, 0)
        frames = self.frames.index_select(0, _move(index.flatten(), self.frames.device)).view(*index.shape, -1)
        inside = _move(inside[:, :, None], self.frames.device)
        padding = _move(self.pad_values[rows, None, None], self.frames.device)
        return self.to_device(torch.where(inside, frames, padding)).float().transpose(1, 2)[:, None]

    def to_device(self, tensor: Tensor) -> Tensor:
        """Move `tensor` to the device, without waiting for a GPU."""
        return _move(tensor, self.device)


def check_sets(train_set: MelDataset, validation_set: MelDataset, title: str) -> None:
    """Raise ValueError if a set is empty, if classes, mel settings or devices differ, or if a clip is in both."""
    if not (len(train_set) and len(validation_set)):
        raise ValueError(f"{title}: the training or the validation set has no clips: choose others.")
    refuse_mismatch(train_set, validation_set)
    if both := set(train_set.table["fname"]) & set(validation_set.table["fname"]):
        raise ValueError(f"{title}: {min(both)} is in both the training and the validation set: make them disjoint.")


def refuse_mismatch(one: MelDataset, other: MelDataset) -> None:
    """Raise ValueError if the classes, their order, the mel settings or the devices of two sets differ."""
    if (one.classes, one.mel) != (other.classes, other.mel):
        raise ValueError("Two sets differ in classes or mel settings: load both from one competition with one preset.")
    if one.device != other.device:  # scoring on one would move the model away from the other
        raise ValueError(f"Two sets are on {one.device} and {other.device}: load both on one device.")


def _tensor(frames: np.ndarray) -> Tensor:
    with warnings.catch_warnings():  # torch warns that somebody could write to it; nobody does
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(frames)


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    if tensor.device == device:
        return tensor
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def _place(frames: Tensor, device: torch.device) -> Tensor:
    return frames.to(_device_with_room(frames.nbytes, device))


def _device_with_room(nbytes: int, device: torch.device) -> torch.device:
    """Return the device if `nbytes` leave half of its free memory, or of this process's share, to the model; or CPU."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        allocated = torch.cuda.memory_allocated(device)
        free += torch.cuda.memory_reserved(device) - allocated  # freed but kept by torch
        if nbytes > min(free, total / processes_per_gpu - allocated) / 2:
            return torch.device("cpu")
    return device


def load_split(
    cache: Cache, table: pd.DataFrame, classes: list[str], preset: Preset, device: str | torch.device
) -> tuple[MelDataset, MelDataset]:
    """Return the training and validation sets, labels corrected: the same for every model of a preset."""
    clips = load_labeled(cache, table, classes, preset, device)
    train_rows, validation_rows = splits.split(clips.table, preset.seed)
    return clips.subset(train_rows), clips.subset(validation_rows)


def load_labeled(
    cache: Cache, table: pd.DataFrame, classes: list[str], preset: Preset, device: str | torch.device
) -> MelDataset:
    """Return all clips of `table` to train on, labels corrected (prints how many).

    Clips that cannot be read are left out if `preset.drop_unreadable`; otherwise they raise a ValueError that lists
    them.
    """
    if corrections := table["fname"].isin(data.LABEL_CORRECTIONS).sum():
        print(f"{corrections} clips have a label correction and are relabeled or dropped: see data.LABEL_CORRECTIONS")
    table = data.correct_labels(table, classes)
    unreadable = cache.unreadable[cache.unreadable["fname"].isin(table["fname"])]
    if len(unreadable):
        some = f"{len(unreadable)} of {len(table)} training clips cannot be read"
        if not preset.drop_unreadable:
            raise ValueError(
                f"{some}:\n{format_report(unreadable)}\nReplace the files, or remove them and their rows "
                "(in a dataset of utils.own: remove the sounds and make it again with --replace), and rerun "
                "02_preprocessing; or set FAT_DROP_UNREADABLE to 1 before setup() to train without them."
            )
        print(f"{some} and are left out")
        table = cache.readable(table)
    return MelDataset(cache, table, classes, device)
