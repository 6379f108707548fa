"""Crops, random draws and augmentation."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from utils import augment, models, train
from utils.config import NO_AUGMENTATION, TrainingConfig
from utils.dataset import MelDataset

AUGMENTED = TrainingConfig(epochs=1, crop="random", **dict.fromkeys(NO_AUGMENTATION, 0.5))


def noise(n=4, n_mels=32, n_frames=48):
    return 20 * torch.rand(n, 1, n_mels, n_frames, generator=torch.Generator().manual_seed(0)) - 50


def draw(dataset, rows, config, seed=0):
    return augment.draw_batch(dataset, rows, config, torch.Generator().manual_seed(seed))


def test_random_crops_begin_anywhere_in_a_longer_clip_and_around_a_shorter_one():
    clips = SimpleNamespace(lengths=torch.tensor([126, 128, 131]))
    offsets = draw(clips, torch.arange(3).repeat(200), replace(AUGMENTED, **NO_AUGMENTATION))["offsets"].view(200, 3)
    assert [sorted(set(some.tolist())) for some in offsets.T] == [[-2, -1, 0], [0], [0, 1, 2, 3]]


def test_each_augmentation_is_drawn_with_its_probability_over_its_whole_range(sets):
    config = replace(AUGMENTED, **dict.fromkeys(NO_AUGMENTATION, 0.7))
    some = draw(sets[0], torch.arange(192).repeat(10), config)
    drawn = [some["gain"] > -torch.inf, some["resized"], some["mask_width"].any(dim=1), some["filter_gain"].any(dim=1)]
    assert all(0.65 < each.float().mean() < 0.75 for each in drawn)
    ranges = {
        "gain": (-12, 0), "rate": (0.75, 1.33), "mel_scale": (0.9, 1.1), "mel_shift": (-0.06, 0.06),
        "mask_width": (0, 0.2), "mask_start": (0, 1), "filter_gain": (-12, 12),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        values, near = some[name][some[name].isfinite()], 0.05 * (high - low)
        assert low - 1e-5 <= values.min() < low + near, name
        assert high - near < values.max() <= high + 1e-5, name


@pytest.mark.parametrize("most", [1, 3, 8])
@pytest.mark.parametrize("crop", ["start", "random"])
def test_test_time_crops_go_from_the_first_frame_to_the_last(most, crop):
    lengths = torch.tensor([1, 100, 128, 129, 300, 5000])
    rows, offsets = augment.tta_crops(lengths, replace(AUGMENTED, n_frames=128, test_crops=most, crop=crop))
    for row, length in enumerate(lengths.tolist()):
        count = min(most, -(-length // 128))
        expected = [int(x) for x in np.linspace(0, max(0, length - 128), count)]
        if crop == "random" and length < 128:  # centered, as in a typical random crop
            expected = [-14 if length == 100 else -64]
        assert offsets[rows == row].tolist() == expected


def test_each_process_makes_its_shard_of_the_same_batch(sets):
    rows = torch.arange(40)
    whole = draw(sets[0], rows, AUGMENTED)
    assert {"gain", "rate", "mask_width", "filter_gain"} <= whole.keys()
    x, targets = augment.make_batch(sets[0], whole, AUGMENTED)
    for processes in (3, 40):
        for rank in range(processes):
            shard = {name: values[rank::processes] for name, values in whole.items()}
            part = augment.make_batch(sets[0], shard, AUGMENTED)
            assert torch.allclose(part[0], x[rank::processes], atol=1e-4)
            assert torch.equal(part[1], targets[rank::processes])
    plain, _ = augment.make_batch(sets[0], {name: whole[name] for name in ("rows", "offsets")}, AUGMENTED)
    changed = ((x - plain).abs() > 1e-3).flatten(1).any(dim=1)
    expected = (whole["gain"] > -torch.inf) | whole["resized"]
    expected |= (whole["mask_width"] > 0).any(dim=1) | (whole["filter_gain"] != 0).any(dim=1)
    assert torch.equal(changed, expected)
    assert 0 < expected.sum() < len(rows)


@pytest.mark.parametrize("streamed", [True, False])
def test_clips_are_moved_to_the_models_device(cache, sets, streamed):
    """Like a GPU, torch's meta device cannot compute with tensors on the CPU."""
    elsewhere = torch.device("meta")
    if streamed:
        part = sets[0].subset(np.arange(40))
        part.device = elsewhere
    else:
        part = MelDataset(cache, sets[0].table[:40], sets[0].classes, elsewhere)
    x, targets = augment.make_batch(part, draw(part, torch.arange(40), AUGMENTED), AUGMENTED)
    assert (x.device, x.shape) == (elsewhere, (40, 1, 128, 128))
    assert (targets.device, targets.shape) == (elsewhere, (40, 12))
    with elsewhere:
        vgg19 = models.VGG19(12, width=2)
    vgg19.freeze()
    config = TrainingConfig(epochs=1)
    features = train.frozen_features(vgg19, part, config)
    x, _ = augment.make_batch(part, draw(part, torch.arange(8), config), config, features)
    assert (x.device, x.shape) == (elsewhere, (8, 16, 8, 8))


def test_mixing_clips_adds_their_powers():
    x, other = noise(), noise().flip(0)
    twice = augment.mix_in_power(x, x, torch.zeros(4))
    assert torch.allclose(twice, x + 10 * np.log10(2), atol=1e-4)
    assert torch.allclose(augment.mix_in_power(x, other, torch.full((4,), -torch.inf)), x, atol=1e-5)
    faint = augment.mix_in_power(torch.full_like(x, -200), other, torch.full((4,), -6.0))  # only the other clip is left
    assert torch.allclose(faint.amax(dim=(1, 2, 3)), torch.tensor(-200 + 10 * np.log10(1 + 10**-0.6)).float())


def test_a_mixed_clip_has_the_labels_of_both(sets):
    train_set, rows = sets[0], torch.arange(60)
    mixed = draw(train_set, rows, replace(AUGMENTED, mix_probability=0.7))
    _, targets = augment.make_batch(train_set, mixed, AUGMENTED)
    for row, other, gain, labels in zip(rows, mixed["other_rows"], mixed["gain"], targets):
        either = (train_set.targets[row] > 0) | (train_set.targets[other] > 0) & (gain > -torch.inf)
        assert torch.equal(labels > 0, either)


def test_a_pause_is_not_mixed(sets):
    train_set, rows = sets[0], torch.arange(60)
    mixed, beyond = draw(train_set, rows, replace(AUGMENTED, mix_probability=1.0)), 10**6  # there, all is padding
    mixed |= {"resized": rows < 0, "mask_width": torch.zeros(60, 2), "filter_gain": torch.zeros(60, 5)}
    mixed["offsets"][:20] = mixed["other_offsets"][10:30] = beyond
    x, targets = augment.make_batch(train_set, mixed, AUGMENTED)
    unmixed = [
        torch.allclose(x[i], train_set.crops(rows[[i]], mixed["offsets"][[i]], 128)[0], atol=1e-3) for i in range(60)
    ]
    assert unmixed == [True] * 30 + [False] * 30
    assert torch.equal(targets[:30].cpu(), train_set.targets[:30])


def test_resizing_by_one_changes_nothing_and_a_rate_of_two_halves_the_duration():
    x, one, none = noise(), torch.ones(4), torch.zeros(4)
    assert torch.allclose(augment.resize(x, one, one, none), x, atol=1e-3)
    sound = torch.full((1, 1, 32, 64), -80.0)
    sound[..., 16:48] = -20
    fast = augment.resize(sound, torch.tensor([2.0]), torch.ones(1), torch.zeros(1))
    heard = (fast[0, 0] > -50).all(dim=0)
    assert heard.sum() == 16
    assert heard[24:40].all()
    higher = augment.resize(sound.transpose(2, 3), torch.ones(1), torch.ones(1), torch.full((1,), 0.25))
    assert torch.equal((higher[0, 0] > -50).all(dim=1).nonzero()[:, 0], torch.arange(0, 32))
    narrow = augment.resize(sound.transpose(2, 3), torch.ones(1), torch.tensor([2.0]), torch.zeros(1))
    assert torch.equal((narrow[0, 0] > -50).all(dim=1).nonzero()[:, 0], torch.arange(24, 40))


def test_spec_augment_masks_frequency_and_time():
    x = torch.randn(64, 1, 40, 60, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    start, width = (torch.rand(64, 2, generator=generator) for _ in range(2))
    masked = augment.spec_augment(x, start, 0.2 * width)
    changed = (masked != x)[:, 0]
    bands, stretches = changed.all(dim=2), changed.all(dim=1)
    assert torch.equal(changed, bands[:, :, None] | stretches[:, None, :])
    for hidden, expected in ((bands, 0.2 * width[:, 0]), (stretches, 0.2 * width[:, 1])):
        assert (hidden.float().mean(dim=1) - expected).abs().max() <= 1 / 40
        assert (hidden.int().diff(dim=1).abs().sum(dim=1) <= 2).all()  # contiguous
    assert torch.equal(masked, torch.where(changed[:, None], x.mean(dim=(1, 2, 3), keepdim=True), x))
    assert torch.equal(augment.spec_augment(x, start, torch.zeros(64, 2)), x)


def test_filter_augment_adds_a_gain_that_is_linear_between_its_points():
    x = noise(n_mels=41)
    added = augment.filter_augment(x, torch.tensor([[-12.0, 0, 4, 2, 2]] + [[0.0] * 5] * 3)) - x
    curve = np.interp(np.arange(41), [0, 10, 20, 30, 40], [-12, 0, 4, 2, 2])
    assert np.allclose(added[0, 0].T, curve, atol=1e-4)
    assert not added[1:].any()


def test_example_batches_are_reproducible(sets):
    x, targets = augment.example_batch(sets[0], AUGMENTED, 6)
    assert (x.shape, targets.shape) == ((6, 1, 128, 128), (6, 12))
    again, _ = augment.example_batch(sets[0], AUGMENTED, 6)
    assert np.array_equal(x, again)
