"""Random crops for training, their augmentation, and the evenly spaced crops of test-time augmentation."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .config import NO_AUGMENTATION, TrainingConfig
from .dataset import MelDataset

GAIN = (-12.0, 0.0)  # dB, peak of a mixed-in crop relative to the peak of the crop it is added to
RATE = (0.75, 1.33)  # of time: above 1, a sound is faster
MEL_SCALE, MEL_SHIFT = 0.1, 0.06  # largest changes, as shares of the mel axis
LARGEST_MASK = 0.2  # share of either axis
FILTER_GAIN, FILTER_POINTS = 12.0, 5  # largest gain in dB, and at how many points of the mel axis it is drawn
POWER = math.log(10) / 10  # converts dB to the natural logarithm of power


def draw_batch(
    dataset: MelDataset, rows: Tensor, config: TrainingConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw everything random about the batch of clips `rows`: tensors on the CPU, one row per clip.

    Drawing happens before any process takes its shard of the rows, so batches are the same for any number of processes
    and any kind of device.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(rows), *shape, generator=generator)

    def begin(rows: Tensor) -> Tensor:
        if config.crop == "start":
            return torch.zeros_like(rows)
        room = dataset.lengths[rows] - config.n_frames  # a crop is inside a longer clip, around a shorter one
        return (uniform(0, 1) * (room.abs() + 1)).long() + room.clamp(max=0)

    draw = {"rows": rows, "offsets": begin(rows)}
    if config.mix_probability:
        other = rows[torch.randperm(len(rows), generator=generator)]
        gain = torch.where(uniform(0, 1) < config.mix_probability, uniform(*GAIN), -math.inf)
        draw |= {"other_rows": other, "other_offsets": begin(other), "gain": gain}
    if config.resize_probability:
        rate = uniform(math.log(RATE[0]), math.log(RATE[1])).exp()
        scale, shift = uniform(1 - MEL_SCALE, 1 + MEL_SCALE), uniform(-MEL_SHIFT, MEL_SHIFT)
        resized = uniform(0, 1) < config.resize_probability
        draw |= {"resized": resized, "rate": rate, "mel_scale": scale, "mel_shift": shift}
    if config.spec_augment_probability:
        masked = uniform(0, 1) < config.spec_augment_probability
        draw |= {"mask_width": uniform(0, LARGEST_MASK, 2) * masked[:, None], "mask_start": uniform(0, 1, 2)}
    if config.filter_probability:
        filtered = uniform(0, 1) < config.filter_probability
        draw["filter_gain"] = uniform(-FILTER_GAIN, FILTER_GAIN, FILTER_POINTS) * filtered[:, None]
    return draw


def make_batch(
    dataset: MelDataset, draw: dict[str, Tensor], config: TrainingConfig, features: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Build the batch of `draw` on the device: input dB (clips, 1, n_mels, n_frames) and targets (clips, classes).

    If the model's frozen layers have already been run, the input is their `features` of each clip of the dataset
    instead.
    """
    targets = dataset.to_device(dataset.targets[draw["rows"]])
    if features is not None:
        return features[dataset.to_device(draw["rows"])], targets
    x = dataset.crops(draw["rows"], draw["offsets"], config.n_frames)
    if "gain" in draw:
        other = dataset.crops(draw["other_rows"], draw["other_offsets"], config.n_frames)
        # A pause is not mixed: scaled to the other's level, its floor would be noise.
        pauses = [some.amax(dim=(1, 2, 3)) == some.amin(dim=(1, 2, 3)) for some in (x, other)]
        gain = dataset.to_device(draw["gain"]).masked_fill(pauses[0] | pauses[1], -math.inf)
        x = mix_in_power(x, other, gain)
        other_targets = dataset.to_device(dataset.targets[draw["other_rows"]])
        targets = torch.maximum(targets, other_targets * (gain > -math.inf)[:, None])
    if "rate" in draw and draw["resized"].any():
        resized = torch.nonzero(draw["resized"])[:, 0]
        factors = [dataset.to_device(draw[name][resized]) for name in ("rate", "mel_scale", "mel_shift")]
        resized = dataset.to_device(resized)
        x = x.index_copy(0, resized, resize(x[resized], *factors))
    if "mask_width" in draw:
        x = spec_augment(x, dataset.to_device(draw["mask_start"]), dataset.to_device(draw["mask_width"]))
    if "filter_gain" in draw:  # after the masks, which are thus not flat either
        x = filter_augment(x, dataset.to_device(draw["filter_gain"]))
    return x.contiguous(memory_format=torch.channels_last), targets


def example_batch(dataset: MelDataset, config: TrainingConfig, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch as drawn in training: dB (size, 1, n_mels, n_frames), and targets (size, classes)."""
    generator = torch.Generator().manual_seed(config.seed)
    rows = torch.randperm(len(dataset), generator=generator)[:size]
    x, targets = make_batch(dataset, draw_batch(dataset, rows, config, generator), config)
    return x.cpu().numpy(), targets.cpu().numpy()


def examples(dataset: MelDataset, config: TrainingConfig) -> dict[str, np.ndarray]:
    """Return the original crop of the first clip and after each augmentation alone: dB, (n_mels, n_frames) each.

    To make the effects visible, the resized one is as slow and shifted as high as possible, and the gain of the last
    one rises all the way.
    """
    plain = replace(config, crop="start", **NO_AUGMENTATION)
    configs = {
        "original": plain,
        "mixed in power": replace(plain, mix_probability=1.0),
        "resized": replace(plain, resize_probability=1.0),
        "masked (SpecAugment)": replace(plain, spec_augment_probability=1.0),
        "filtered (FilterAugment)": replace(plain, filter_probability=1.0),
    }
    rows = torch.arange(min(8, len(dataset)))
    centered = replace(plain, crop="random", test_crops=1)  # at the edge of a crop, resizing may move a short clip out
    _, offsets = tta_crops(dataset.lengths[rows], centered)
    shown = {}
    for name, only in configs.items():
        draw = draw_batch(dataset, rows, only, torch.Generator().manual_seed(config.seed))
        draw["offsets"] = offsets
        if "rate" in draw:
            draw["rate"][:], draw["mel_scale"][:], draw["mel_shift"][:] = RATE[0], 1.0, -MEL_SHIFT
        if "filter_gain" in draw:
            draw["filter_gain"][:] = torch.linspace(-FILTER_GAIN, FILTER_GAIN, FILTER_POINTS)
        shown[name] = make_batch(dataset, draw, only)[0][0, 0].cpu().numpy()
    return shown


def mix_in_power(x: Tensor, other: Tensor, gain: Tensor) -> Tensor:
    """Mix two sounds as if independent, by adding their powers: dB spectrograms (clips, 1, n_mels, n_frames).

    The peak of `other` is set `gain` dB, (clips,), above that of `x`; at minus infinity nothing is added.
    """
    gain = gain[:, None, None, None] + x.amax(dim=(1, 2, 3), keepdim=True) - other.amax(dim=(1, 2, 3), keepdim=True)
    return torch.logaddexp(POWER * x, POWER * (other + gain)) / POWER


def resize(x: Tensor, rate: Tensor, mel_scale: Tensor, mel_shift: Tensor) -> Tensor:
    """Change the tempo and pitch of each spectrogram, keeping its shape and padding with its minimum.

    `rate` (of time), `mel_scale` and `mel_shift` (a share of the mel axis) have shape (clips,). Above 1, the first two
    squeeze the spectrogram toward the middle of their axes; a `mel_shift` above 0 moves it down.
    """
    height, width = ((2 * torch.arange(n, device=x.device) + 1) / n - 1 for n in x.shape[2:])  # centers, from -1 to 1
    time, mel = rate[:, None] * width, mel_scale[:, None] * height + 2 * mel_shift[:, None]
    least = x.amin(dim=(1, 2, 3), keepdim=True)
    grid = torch.stack(torch.broadcast_tensors(time[:, None, :], mel[:, :, None]), dim=3)
    return F.grid_sample(x - least, grid, align_corners=False) + least


def spec_augment(x: Tensor, start: Tensor, width: Tensor) -> Tensor:
    """Set a frequency mask and a time mask on each clip to the clip's mean. Shape (clips, 1, n_mels, n_frames).

    `width`, (clips, 2), is the width of the masks as shares of the axes, and `start` their position within the
    remaining room.
    """
    # Source: Park et al. 2019, SpecAugment, without its time warping.
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    for axis, shape in ((2, (-1, 1, x.shape[2], 1)), (3, (-1, 1, 1, x.shape[3]))):
        begin = start[:, axis - 2, None] * (1 - width[:, axis - 2, None])
        place = (torch.arange(x.shape[axis], device=x.device) + 0.5) / x.shape[axis]
        masked = (place >= begin) & (place < begin + width[:, axis - 2, None])
        x = torch.where(masked.view(shape), mean, x)
    return x


def filter_augment(x: Tensor, gain: Tensor) -> Tensor:
    """Filter each sound as another microphone or room would: add a gain in dB that changes along the mel axis.

    `gain`, (clips, points), is spread evenly from the lowest band to the highest and linear in between.
    """
    # Source: Nam, Kim and Park 2022, FilterAugment: an acoustic environmental data augmentation method, linear type.
    return x + F.interpolate(gain[:, None], x.shape[2], mode="linear", align_corners=True)[..., None]


def rms(x: Tensor) -> Tensor:
    """Return the root mean square (RMS) over the mel bands, as an amplitude, of each dB spectrogram: (clips,)."""
    return (POWER * x).exp().mean(dim=(1, 2, 3)).sqrt()


def tta_crops(lengths: Tensor, config: TrainingConfig) -> tuple[Tensor, Tensor]:
    """Return row and first frame, both (crops,), of the test-time augmentation crops of clips with these lengths.

    Each clip has at most `config.test_crops` crops, spread evenly from its first frame to its last; a single crop is
    its first `config.n_frames`. If training crops are random, a clip shorter than a crop is centered in it: training
    rarely shows one at the very edge.
    """
    count = (lengths / config.n_frames).ceil().long().clamp(1, config.test_crops)
    rows = torch.repeat_interleave(torch.arange(len(lengths)), count)
    number = torch.arange(len(rows)) - (count.cumsum(0) - count)[rows]
    room = lengths - config.n_frames
    offsets = room.clamp(min=0)[rows] * number // (count[rows] - 1).clamp(min=1)
    if config.crop == "random":
        offsets += room.clamp(max=0)[rows] // 2
    return rows, offsets
