"""Crops of the flat cache, and what varies them: tensors in, tensors out, on whatever device they are."""

import torch
from torch import Tensor


def crop(frames: Tensor, starts: Tensor, lengths: Tensor, floors: Tensor, offsets: Tensor, n_frames: int) -> Tensor:
    """A window of each of several clips in one gather: (clips, n_frames, n_mels), of the type of `frames`.

    `frames` (all frames, n_mels) holds the clips one after another; the other tensors, (clips,), say where a clip starts in it,
    how long it is, its floor in dB, and the frame of the clip at which its window begins. Beyond the
    clip's ends lies its floor, as zeros padded to the samples would give.
    """
    position = offsets[:, None] + torch.arange(n_frames, device=frames.device)
    inside = (position >= 0) & (position < lengths[:, None])
    rows = torch.where(inside, starts[:, None] + position, 0)
    window = frames.index_select(0, rows.flatten()).view(*rows.shape, -1)
    return torch.where(inside[:, :, None], window, floors[:, None, None])


def random_offsets(lengths: Tensor, n_frames: int, generator: torch.Generator) -> Tensor:
    """Where each clip's window begins, drawn evenly: inside a longer clip, around a shorter one."""
    room = lengths - n_frames
    draw = torch.rand(len(lengths), generator=generator, device=lengths.device)
    return (draw * (room.abs() + 1)).long() + room.clamp(max=0)


def mixup(x: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each clip mixed with another of the batch, and so their labels; the share of each is drawn evenly.

    The mix is of dB values, image-like as in mixup's paper (Zhang et al. 2018), with Beta(1, 1).
    """
    other = torch.randperm(len(x), generator=generator, device=generator.device).to(x.device)
    share = torch.rand(len(x), generator=generator, device=generator.device).to(x.device)
    share = torch.maximum(share, 1 - share)
    mix = share[:, None, None, None]
    return mix * x + (1 - mix) * x[other], share[:, None] * targets + (1 - share[:, None]) * targets[other]


def mask(x: Tensor, generator: torch.Generator, largest: float = 0.2) -> Tensor:
    """A band of mels and a stretch of frames of each clip, each up to `largest` of the whole, set to the clip's mean (SpecAugment)."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    for axis in (2, 3):
        size = x.shape[axis]
        width, begin = torch.rand(2, len(x), 1, generator=generator, device=generator.device).to(x.device)
        width = width * largest * size
        begin = begin * (size - width)
        position = torch.arange(size, device=x.device)
        hidden = (position >= begin) & (position < begin + width)
        x = torch.where(hidden[:, None, :, None] if axis == 2 else hidden[:, None, None, :], mean, x)
    return x
