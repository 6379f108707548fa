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
    labels. `.frames` has, for each of `.caches`, its frames: a tensor on the device if they take at most half of the
    free memory, or of this process's share. Otherwise they stay in the memory-mapped file, and what a batch needs is
    sent through pinned memory. All else, a value or row per clip, stays on the CPU: `.targets`, `.source` (the number
    of its cache), `.starts`, `.lengths`, `.pad_values`.
    """

    def __init__(
        self, cache: Cache, table: pd.DataFrame, classes: list[str], device: str | torch.device = "cpu"
    ) -> None:
        table = table.reset_index(drop=True)
        self.caches, self.table, self.classes, self.mel = (cache,), table, classes, cache.settings
        self.device = torch.empty(0, device=device).device  # "cuda" with its index
        clips = cache.clips.iloc[cache.rows(table["fname"])]
        self.table[splits.CONTENT] = clips[splits.CONTENT].to_numpy()
        self.frames = (_place(cache, self.device),)
        self.source = torch.zeros(len(table), dtype=torch.long)
        self.starts = torch.tensor(clips["start"].to_numpy())
        self.lengths = torch.tensor(clips["length"].to_numpy())
        self.pad_values = torch.tensor(clips["pad_value"].to_numpy(), dtype=self.frames[0].dtype)
        self.targets = torch.tensor(data.multi_hot(table, classes)) if "labels" in table else None

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        place = "on" if all(frames.device == self.device for frames in self.frames) else "streamed to"
        device = "GPU" if self.device.type == "cuda" else "CPU"
        nbytes = sum(frames.nbytes for frames in self.frames)
        return f"{len(self)} clips of a cache of {nbytes / 1e6:,.0f} MB, {place} the {device}"

    def __copy__(self) -> "MelDataset":  # by default, copy uses __getstate__, which drops the frames
        part = object.__new__(MelDataset)
        part.__dict__.update(self.__dict__)
        return part

    def __getstate__(self) -> dict:
        """Pickle for another process, which reads the frames from their files."""
        return self.__dict__ | {"frames": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.device = torch.empty(0, device=self.device.type).device  # this process's, of several GPUs
        for cache in self.caches:
            if cache not in _placed:
                _placed[cache] = _place(cache, self.device)
        self.frames = tuple(_placed[cache] for cache in self.caches)

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the caches, which identify the content of the clips."""
        return tuple(cache.folder.name for cache in self.caches)

    def subset(self, rows: np.ndarray) -> "MelDataset":
        """Return the clips of these rows (numbers, or a mask), sharing the frames."""
        part = copy.copy(self)
        part.table = self.table.iloc[rows].reset_index(drop=True)
        for name in ("source", "starts", "lengths", "pad_values", "targets"):
            if (tensor := getattr(self, name)) is not None:
                setattr(part, name, tensor[torch.as_tensor(rows)])
        return part

    def join(self, other: "MelDataset") -> "MelDataset":
        """Return the clips of both, sharing the frames.

        Raises ValueError if their classes, mel settings or devices differ.
        """
        refuse_mismatch(self, other)
        joined = copy.copy(self)
        joined.caches, joined.frames = self.caches + other.caches, self.frames + other.frames
        joined.source = torch.cat([self.source, other.source + len(self.caches)])
        joined.table = pd.concat([self.table, other.table], ignore_index=True)
        for name in ("starts", "lengths", "pad_values", "targets"):
            setattr(joined, name, torch.cat([getattr(self, name), getattr(other, name)]))
        return joined

    def clip(self, row: int) -> Tensor:
        """Return the whole clip of this row: dB, (frames, n_mels), where the frames of its cache are."""
        start = int(self.starts[row])
        return self.frames[self.source[row]][start : start + int(self.lengths[row])]

    def crops(self, rows: Tensor, offsets: Tensor, n_frames: int) -> Tensor:
        """Cut `n_frames` of the clips `rows` from frame `offsets` on: dB on the device, (clips, 1, n_mels, n_frames).

        `rows` and `offsets`, on the CPU, have shape (clips,); the result is float32. Frames beyond a clip's ends have
        its pad value, as if its samples were padded with zeros.
        """
        position = offsets[:, None] + torch.arange(n_frames)
        inside = (position >= 0) & (position < self.lengths[rows, None])
        index = torch.where(inside, self.starts[rows, None] + position, 0)
        x = torch.empty(*index.shape, self.mel.n_mels, dtype=self.pad_values.dtype, device=self.device)
        for number, frames in enumerate(self.frames):
            of_cache = torch.nonzero(self.source[rows] == number)[:, 0]
            if len(of_cache):
                selected = frames.index_select(0, _move(index[of_cache].flatten(), frames.device))
                x.index_copy_(0, self.to_device(of_cache), self.to_device(selected.view(-1, *x.shape[1:])))
        padding = self.to_device(self.pad_values[rows, None, None])
        return torch.where(self.to_device(inside[:, :, None]), x, padding).float().transpose(1, 2)[:, None]

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


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    if tensor.device == device:
        return tensor
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def _place(cache: Cache, device: torch.device) -> Tensor:
    """Return the frames on the device, if half of its free memory, or of this process's share, holds them."""
    with warnings.catch_warnings():  # torch warns that somebody could write to it; nobody does
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        frames = torch.from_numpy(cache.frames)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        allocated = torch.cuda.memory_allocated(device)
        free += torch.cuda.memory_reserved(device) - allocated  # freed but kept by torch
        if frames.nbytes > min(free, total / processes_per_gpu - allocated) / 2:
            return frames
    return frames.to(device)


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
