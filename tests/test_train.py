import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from utils import augment, metrics, models, train
from utils.dataset import load_split
from utils.config import QUICK
from utils.run_folder import find_runs

SETTINGS = replace(QUICK.deep_cnn, epochs=16)


@pytest.fixture(scope="module")
def clips(competition, cache):
    return load_split(cache, competition.curated, competition.classes, QUICK, "cpu")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return models.DeepCNN(12, width=8)


@pytest.fixture(scope="module")
def run(model, clips, tmp_path_factory):
    return fit(model, clips, tmp_path_factory.mktemp("runs") / "deep_cnn")


def fit(model, clips, folder, settings=SETTINGS):
    return train.fit(model, *clips, settings, folder, "Deep CNN")


def test_the_split_holds_a_fifth_out(competition, clips):
    training, validation = (set(part.table["fname"]) for part in clips)
    assert training.isdisjoint(validation)
    assert training | validation == set(competition.curated["fname"])
    assert len(validation) == len(competition.curated) / 5


def test_a_run_learns_and_keeps_its_last_epoch(clips, run):
    validation = clips[1]
    targets = validation.targets.numpy()
    chance = metrics.lwlrap(targets, np.random.default_rng(0).random(targets.shape))
    assert run.summary()["LWLRAP"] > 2 * chance
    assert list(run.history["epoch"]) == list(range(1, 17))
    assert metrics.lwlrap(run.targets, run.scores) == pytest.approx(run.history["LWLRAP"].iloc[-1], abs=1e-6)
    assert np.array_equal(run.targets, targets)
    # Read back from the folder, the model gives the scores that were written in it.
    assert np.allclose(train.predict(run.model(), validation, run.training), run.scores, atol=1e-5)


def test_the_same_seed_gives_the_same_history(model, clips, run, tmp_path):
    assert fit(model, clips, tmp_path / "again").history.equals(run.history)


def test_find_runs_puts_the_best_first(model, clips, run):
    fit(model, clips, run.folder.with_name("short"), replace(SETTINGS, epochs=1))
    assert [found.name for found in find_runs(run.folder.parent)] == ["deep_cnn", "short"]
    with pytest.raises(FileNotFoundError, match="run 03_cnn first"):
        find_runs(run.folder / "nowhere")


def test_a_run_is_not_used_where_it_does_not_fit(clips, run):
    assert np.allclose(train.score(run, clips[1]), run.scores, atol=1e-5)
    for name, other in [("classes", clips[1].classes[::-1]), ("mel", replace(clips[1].mel, n_mels=64))]:
        strange = copy.copy(clips[1])
        setattr(strange, name, other)
        with pytest.raises(ValueError, match=r"deep_cnn (knows 12 classes|was trained on)"):
            train.score(run, strange)


def test_max_steps_ends_the_last_epoch_early(model, clips, tmp_path):
    history = fit(model, clips, tmp_path / "short", replace(SETTINGS, max_steps=8)).history
    assert list(history["steps"]) == [6, 8]


def test_a_loss_that_is_not_finite_stops_the_run(model, clips, tmp_path):
    with pytest.raises(FloatingPointError, match=r"Deep CNN: the loss is nan at step \d+, learning rate inf: lower it"):
        fit(model, clips, tmp_path / "run", replace(SETTINGS, learning_rate=float("inf")))
    assert not (tmp_path / "run").exists()


def test_running_the_frozen_layers_once_changes_nothing(clips, tmp_path, monkeypatch):
    torch.manual_seed(0)
    transfer = models.freeze_early_layers(models.vgg19(12))
    few = [part.subset(np.arange(12)) for part in clips]
    settings = replace(QUICK.vgg19_transfer, epochs=2, batch_size=4)
    assert train.early_outputs(transfer, few[0], settings).shape == (12, 512, 8, 8)
    assert train.early_outputs(transfer, few[0], replace(settings, crop="random")) is None
    assert train.early_outputs(models.DeepCNN(12, width=2), few[0], settings) is None
    once = train.fit(transfer, *few, settings, tmp_path / "once", "VGG19")
    monkeypatch.setattr(train, "early_outputs", lambda *_: None)
    again = train.fit(transfer, *few, settings, tmp_path / "again", "VGG19")
    assert np.allclose(once.history["loss"], again.history["loss"], rtol=1e-3)
    assert np.allclose(once.scores, again.scores, atol=1e-3)


@pytest.mark.parametrize("output", ["sigmoid", "softmax"])
def test_bce_is_the_papers_formula(output):
    logits = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = (torch.rand(5, 7, generator=torch.Generator().manual_seed(1)) < 0.3).double()
    p = train.activate(logits, output)
    expected = -torch.where(targets > 0, p.log(), (1 - p).log()).mean(dim=1)
    assert torch.allclose(train.bce(logits, targets, output), expected, atol=1e-9)
    for certain in (torch.tensor([[100.0, -100.0]]), torch.tensor([[-100.0, 100.0]])):
        certain.requires_grad_()
        loss = train.bce(certain, torch.tensor([[1.0, 0.0]]), output)
        loss.sum().backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(certain.grad).all()


def test_crops_are_the_clips_frames_and_beyond_them_its_floor(cache, clips):
    training = clips[0]
    rows = torch.arange(len(training))
    offsets = augment.random_offsets(training.lengths, 128, torch.Generator().manual_seed(0))
    x = training.crop(rows, offsets, 128)
    assert x.shape == (len(training), 1, 128, 128)
    for row, offset in enumerate(offsets.tolist()):
        clip = cache[training.table["fname"][row]]
        expected = np.full((128, 128), training.floors[row].item(), np.float32)
        begin, end = max(0, offset), min(clip.shape[1], offset + 128)
        assert end - begin == min(128, clip.shape[1])  # a crop is never emptier than it need be
        expected[:, begin - offset : end - offset] = clip[:, begin:end]
        assert np.array_equal(x[row, 0].numpy(), expected)


def test_predict_averages_windows_from_the_first_frame_to_the_last(cache, clips):
    validation = clips[1]
    settings = replace(SETTINGS, windows=3)
    model = models.DeepCNN(12, width=4).eval()
    scores = train.predict(model, validation, settings)
    for row in range(8):
        length = validation.lengths[row].item()
        count = min(3, -(-length // 128))
        offsets = torch.tensor([int(x) for x in np.linspace(0, max(0, length - 128), count)])
        x = validation.crop(torch.full((count,), row), offsets, 128)
        with torch.inference_mode(), train._autocast(torch.device("cpu")):
            expected = model(x.contiguous(memory_format=torch.channels_last)).float().sigmoid().mean(0)
        assert np.allclose(scores[row], expected.numpy(), atol=0.01)


def test_mixup_mixes_labels_as_it_mixes_clips():
    x, targets = torch.arange(4.0)[:, None, None, None].expand(4, 1, 3, 3), torch.eye(4)
    mixed, shares = augment.mixup(x, targets, torch.Generator().manual_seed(0))
    assert torch.allclose(shares.sum(dim=1), torch.ones(4))
    assert torch.allclose(mixed[:, 0, 0, 0], shares @ torch.arange(4.0))
    assert (shares.amax(dim=1) >= 0.5).all()
    assert shares.amax(dim=1).min() < 1


def test_mask_hides_a_band_and_a_stretch():
    x = torch.randn(64, 1, 40, 60, generator=torch.Generator().manual_seed(0))
    masked = augment.mask(x, torch.Generator().manual_seed(1))
    changed = (masked != x)[:, 0]
    bands, stretches = changed.all(dim=2), changed.all(dim=1)
    assert torch.equal(changed, bands[:, :, None] | stretches[:, None, :])
    for hidden in (bands, stretches):
        share = hidden.float().mean(dim=1)
        assert share.max() <= 0.2 + 1 / 40
        assert share.mean() == pytest.approx(0.1, abs=0.03)
