import copy
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

from utils import augment, baselines, distributed, inference, launch, metrics, models, muon, train
from utils.checkpoint import Checkpoint
from utils.config import TrainingConfig
from utils.dataset import MelDataset


@pytest.fixture(scope="module")
def few(sets):
    return [part.subset(np.arange(24)) for part in sets]


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return models.DeepCNN(12, width=2, stem=4)


TINY = TrainingConfig(epochs=3, batch_size=12)


def fit(model, sets, folder, config):
    return train.fit(model, *sets, config, folder, "Deep CNN")


@contextmanager
def stopped_after_an_epoch():
    """Interrupt training in this block when its second epoch begins."""
    epoch = train.Trainer.epoch

    def stop_at_two(self, number, *rest):
        if number == 2:
            raise KeyboardInterrupt
        return epoch(self, number, *rest)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.Trainer, "epoch", stop_at_two)
        yield


def test_a_run_learns_and_saves_its_last_epoch(sets, run):
    validation_set = sets[1]
    targets = validation_set.targets.numpy()
    chance = metrics.lwlrap(targets, np.random.default_rng(0).random(targets.shape))
    assert run.summary()["LWLRAP"] > 2 * chance
    assert run.summary()["LWLRAP"] == pytest.approx(metrics.lwlrap(targets, run.scores), abs=1e-6)
    assert np.array_equal(run.targets, targets)
    assert list(run.history["epoch"]) == list(range(1, 17))
    assert run.history["loss"].iloc[-1] < run.history["loss"].iloc[0] / 2
    # The loaded model gives the saved scores and, from one crop per clip, the last point of the curve.
    assert np.allclose(inference.predict_scores(run.models()[0], validation_set, run.config), run.scores, atol=1e-5)
    by_one_crop = inference.evaluate(run.models()[0], validation_set, replace(run.config, test_crops=1))
    assert run.history[list(by_one_crop)].iloc[-1].to_dict() == pytest.approx(by_one_crop, abs=1e-5)


def test_evaluations_are_limited_and_include_the_last_epoch(few, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "EVALUATIONS", 3)
    history = fit(tiny, few, tmp_path / "run", replace(TINY, epochs=8)).history
    assert list(history["epoch"][history["LWLRAP"].notna()]) == [3, 6, 8]
    assert history["loss"].notna().all()


def test_the_same_seed_gives_the_same_run_and_max_steps_ends_its_last_epoch_early(model, sets, run, tmp_path):
    one, two = (fit(model, sets, tmp_path / name, replace(run.config, max_steps=8)) for name in ("one", "two"))
    assert list(one.history["steps"]) == [6, 8]
    assert one.history.equals(two.history)
    assert np.array_equal(one.scores, two.scores)


def test_scores_stay_with_their_clips_whatever_the_index_of_the_table(few, cache, tiny, tmp_path):
    shuffled = few[1].table.sample(frac=1, random_state=0)
    run = fit(tiny, [few[0], MelDataset(cache, shuffled, few[1].classes)], tmp_path / "run", TINY)
    assert list(run.validation["fname"]) == list(shuffled["fname"])
    assert np.allclose(run.scores, inference.predict_scores(run.models()[0], few[1], TINY)[shuffled.index], atol=1e-5)


def test_a_finished_run_is_kept_and_another_one_replaces_it_with_a_message(few, tiny, tmp_path, monkeypatch, capsys):
    run = fit(tiny, few, tmp_path / "run", TINY)
    assert "replace" not in capsys.readouterr().out
    with stopped_after_an_epoch():
        fit(tiny, few, tmp_path / "run", replace(TINY, seed=1))
    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "epoch", lambda *_: pytest.fail("it is trained again"))
        for bar in (None, tqdm(disable=True)):
            again = train.fit(tiny, *few, TINY, tmp_path / "run", "Deep CNN", bar)
            assert again.history.equals(run.history)
    assert "Deep CNN: already trained, with these clips and settings" in capsys.readouterr().out
    assert Checkpoint(tmp_path / "run", "", {}).file.exists()  # of the other training
    Checkpoint(tmp_path / "run", "", {}).file.write_bytes(b"damaged")
    assert fit(tiny, few, tmp_path / "run", TINY).history.equals(run.history)
    Checkpoint(tmp_path / "run", "", {}).remove()
    assert fit(tiny, few, tmp_path / "run", replace(TINY, epochs=1)).summary()["epochs"] == 1
    assert f"Deep CNN: this will replace the run in {tmp_path / 'run'}" in capsys.readouterr().out


def test_a_folder_with_other_files_is_not_overwritten(few, tiny, tmp_path):
    (tmp_path / "my_results").mkdir()
    (tmp_path / "my_results" / "table.csv").write_text("kept")
    with pytest.raises(FileExistsError, match="my_results holds other files than a run"):
        fit(tiny, few, tmp_path / "my_results", TINY)
    with pytest.raises(FileExistsError, match="my_results holds other files than a run"):
        baselines.fit("knn", *few, tmp_path / "my_results")
    assert (tmp_path / "my_results" / "table.csv").read_text() == "kept"
    for name, taken in ((".DS_Store", True), (".git", False)):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / name).touch()
        with nullcontext() if taken else pytest.raises(FileExistsError, match="holds other files than a run"):
            fit(tiny, few, tmp_path / name / "run", TINY)


def test_settings_that_could_not_be_saved_are_rejected_before_training(few, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(train.Trainer, "epoch", lambda *_: pytest.fail("it is trained"))
    with pytest.raises(ValueError, match=r"Deep CNN: the run could not be saved .*float32.*: use Python's own numbers"):
        fit(tiny, few, tmp_path / "run", replace(TINY, mix_probability=np.float32(0.5)))


def test_the_schedule_is_followed_and_each_epoch_visits_every_clip_once(tiny, few, tmp_path, monkeypatch):
    """The learning rate warms up and falls, augmentation ends before the last tenth, and the order always differs."""
    config = replace(TINY, epochs=10, schedule="cosine", learning_rate=0.01, mix_probability=0.5, optimizer="muon")
    draws, rates, draw_batch = [], {torch.optim.AdamW: [], muon.Muon: []}, augment.draw_batch
    steps = {kind: kind.step for kind in rates}

    def drawn(*given):
        draws.append((given[1].tolist(), draw_batch(*given)))
        return draws[-1][1]

    def stepped(optimizer, *given, **options):
        rates[type(optimizer)].append(optimizer.param_groups[0]["lr"])
        return steps[type(optimizer)](optimizer, *given, **options)

    monkeypatch.setattr(augment, "draw_batch", drawn)
    for kind in rates:
        monkeypatch.setattr(kind, "step", stepped)
    fit(tiny, few, tmp_path / "run", config)
    falling = 0.01 * (1 + np.cos(np.pi * np.arange(18) / 18)) / 2
    for each in rates.values():
        assert each == pytest.approx([0.005, 0.01, *falling])
    assert ["gain" in draw for _, draw in draws] == [True] * 18 + [False] * 2
    orders = [first + second for (first, _), (second, _) in zip(draws[::2], draws[1::2])]
    assert all(sorted(order) == list(range(24)) for order in orders)
    assert len(set(map(tuple, orders))) == 10


def test_a_loss_that_is_not_finite_stops_the_run(tiny, few, tmp_path):
    with pytest.raises(
        FloatingPointError,
        match=r"Deep CNN: the loss is nan at step \d+ with learning rate inf: lower the learning rate",
    ):
        fit(tiny, few, tmp_path / "run", replace(TINY, learning_rate=float("inf")))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("epochs", [2, 120])  # evaluated after every epoch, or not
def test_weights_and_scores_that_are_not_finite_are_not_saved(tiny, few, tmp_path, epochs):
    overflowing = copy.deepcopy(tiny)
    torch.nn.init.constant_(overflowing.dense.bias, float("nan"))
    with pytest.raises(FloatingPointError, match="the scores of the model are not finite"):
        inference.predict_scores(overflowing, few[1], TINY)
    one_step = replace(TINY, epochs=epochs, batch_size=len(few[0]), learning_rate=1e38)
    with pytest.raises(
        FloatingPointError, match=r"Deep CNN: (a weight|the loss) is (not finite|nan|inf) .*: lower the learning rate"
    ):
        fit(tiny, few, tmp_path / "run", one_step)
    kept = tmp_path / "run.checkpoint"
    if kept.exists():
        weights = torch.load(kept, weights_only=True)["model"].values()
        assert all(tensor.isfinite().all() for tensor in weights)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schedule": "linear"}, "schedule is 'linear': set it to one of constant, cosine"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: set it to a number above 0"),
        ({"seed": 1.5}, "seed is 1.5: set it to a whole number"),
        ({"activation": "relu"}, "activation is 'relu': set it to one of softmax, sigmoid"),
        ({"crop": "center"}, "crop is 'center': set it to one of start, random"),
        ({"max_steps": 0}, "max_steps is 0: set it to a whole number, 1 or more"),
        ({"epochs": 2.5}, "epochs is 2.5: set it to a whole number, 1 or more"),
        ({"test_crops": 0}, "test_crops is 0"),
        ({"mix_probability": 1.5}, "mix_probability is 1.5: set it to a number from 0 to 1"),
        ({"augmented": float("nan")}, "augmented is nan"),
    ],
)
def test_an_invalid_config_is_rejected(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainingConfig(**{"epochs": 1} | change)


@pytest.mark.parametrize("scaled", ["before", "after"])
def test_training_resumes_even_if_losses_are_scaled_differently(tiny, few, tmp_path, monkeypatch, capsys, scaled):
    """Stopped without loss scaling, as in bfloat16 or on a CPU, and resumed with it, as in float16; and vice versa."""
    config = replace(TINY, crop="random", schedule="cosine")
    undisturbed = fit(tiny, few, tmp_path / "undisturbed", config)

    def scale_losses(so: bool) -> None:
        monkeypatch.setattr(torch.amp, "GradScaler", lambda enabled, **_: scaler("cpu", init_scale=1024.0, enabled=so))

    scaler = torch.amp.GradScaler
    scale_losses(scaled == "before")
    with stopped_after_an_epoch():
        fit(tiny, few, tmp_path / "run", config)
    scale_losses(scaled == "after")
    run = fit(tiny, few, tmp_path / "run", config)
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert np.allclose(run.history["loss"], undisturbed.history["loss"], rtol=1e-5)
    assert np.allclose(run.scores, undisturbed.scores, atol=1e-5)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["run", "undisturbed"]


def test_an_error_of_the_device_is_not_blamed_on_the_checkpoint(tiny, few, tmp_path, monkeypatch):
    with stopped_after_an_epoch():
        fit(tiny, few, tmp_path / "run", TINY)
    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        fit(tiny, few, tmp_path / "run", TINY)


@pytest.mark.parametrize("other", ["seed", (augment, "RATE", (1.0, 2.0)), (muon, "MOMENTUM", 0.5)])
def test_a_checkpoint_of_another_training_is_not_used(tiny, few, tmp_path, monkeypatch, capsys, other):
    config = replace(TINY, resize_probability=0.5)
    with stopped_after_an_epoch():
        fit(tiny, few, tmp_path / "run", config)
    if other == "seed":
        config = replace(config, seed=1)
    else:
        monkeypatch.setattr(*other)
    changed = fit(tiny, few, tmp_path / "run", config)
    assert "run.checkpoint is from a training with other clips, weights or settings" in capsys.readouterr().out
    assert changed.history.equals(fit(tiny, few, tmp_path / "fresh", config).history)


def test_a_finished_run_is_repeated_if_clips_classes_or_the_model_change(few, tiny, tmp_path, monkeypatch):
    def trained_again(*_):
        raise InterruptedError

    fit(tiny, few, tmp_path / "run", TINY)
    monkeypatch.setattr(train.Trainer, "epoch", trained_again)
    relabeled, resounded, other = few[0].subset(np.arange(24)), copy.copy(few[0]), copy.deepcopy(tiny)
    relabeled.table["labels"] = relabeled.table["labels"].to_numpy()[::-1]
    resounded.caches = (copy.copy(few[0].caches[0]),)
    resounded.caches[0].folder = Path("curated-other")
    torch.nn.init.zeros_(other.dense.bias)
    frozen, dropping = copy.deepcopy(tiny), copy.deepcopy(tiny)
    frozen.stem.requires_grad_(False)
    dropping.config = tiny.config | {"dropout": 0.5}
    reordered = [copy.copy(part) for part in few]
    for part in reordered:
        part.classes = part.classes[::-1]
    smoothed = copy.copy(few[0])
    smoothed.targets = 0.9 * few[0].targets
    for model, train_set, validation_set in (
        (tiny, relabeled, few[1]), (tiny, smoothed, few[1]), (tiny, resounded, few[1]), (tiny, *reordered),
        (other, *few), (frozen, *few), (dropping, *few),
    ):  # fmt: skip
        with pytest.raises(InterruptedError):
            fit(model, [train_set, validation_set], tmp_path / "run", TINY)


def test_sets_that_do_not_belong_together_are_rejected(few, tiny, tmp_path):
    reordered, elsewhere, empty = copy.copy(few[1]), copy.copy(few[1]), few[1].subset(np.arange(0))
    elsewhere.device = torch.device("meta")
    reordered.classes = few[1].classes[::-1]
    with pytest.raises(ValueError, match="Two sets differ in classes or mel settings"):
        few[0].join(reordered)
    for sets, sentence in (
        ([few[0], reordered], "Two sets differ in classes or mel settings"),
        ([few[0], elsewhere], "Two sets are on cpu and meta: load both on one device"),
        ([few[0], empty], "the training or the validation set has no clips"),
        ([empty, few[1]], "the training or the validation set has no clips"),
    ):
        with pytest.raises(ValueError, match=sentence):
            launch.fit(tiny, *sets, TINY, tmp_path / "run", "Tiny")
        with pytest.raises(ValueError, match=sentence):
            baselines.fit("knn", *sets, tmp_path / "run")


def test_the_gradients_of_all_processes_average_to_that_of_the_batch(few, tiny, monkeypatch):
    monkeypatch.setattr(inference, "autocast_dtype", lambda device: torch.float32)
    trainer, gradients = train.Trainer(tiny, few[0], TINY, "Deep CNN"), []
    trainer.model.eval()  # batch normalization would use each process's own batch
    weight = trainer.model.dense.weight
    monkeypatch.setattr(trainer, "update", lambda loss: gradients.append(torch.autograd.grad(loss, weight)[0]))
    draw = augment.draw_batch(few[0], torch.arange(9), TINY, torch.Generator())
    trainer.step(draw, 9)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        trainer.step({name: distributed.shard(values) for name, values in draw.items()}, 9)
    whole, *halves = gradients
    assert torch.allclose(whole, sum(halves) / 2, rtol=1e-4, atol=1e-7)


def test_the_number_of_steps_has_limits():
    limits = ({}, {"min_steps": 7}, {"max_steps": 5}, {"min_steps": 7, "max_steps": 5})
    assert [TrainingConfig(2, batch_size=10, **some).steps(25) for some in limits] == [6, 7, 5, 5]


def test_running_the_frozen_layers_once_changes_nothing(few, tmp_path, monkeypatch):
    torch.manual_seed(0)
    vgg19 = models.VGG19(12, width=8, downsample=2)
    vgg19.freeze()
    config = TrainingConfig(epochs=2, batch_size=8, learning_rate=1e-4)
    assert train.frozen_features(vgg19, few[0], config).shape == (24, 64, 4, 4)
    for varied in ({"crop": "random"}, {"mix_probability": 0.5}):
        assert train.frozen_features(vgg19, few[0], replace(config, **varied)) is None
    assert train.frozen_features(models.DeepCNN(12, width=2), few[0], config) is None
    once = fit(vgg19, few, tmp_path / "once", config)
    monkeypatch.setattr(train, "frozen_features", lambda *_: None)
    again = fit(vgg19, few, tmp_path / "again", config)
    assert np.allclose(once.history["loss"], again.history["loss"], rtol=1e-3)
    assert np.allclose(once.scores, again.scores, atol=1e-3)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_bce_is_the_papers_formula(activation):
    logits = 8 * torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))  # some confident
    targets = (torch.rand(50, 7, generator=torch.Generator().manual_seed(1)) < 0.3).double()
    p = inference.activate(logits, activation)
    expected = -torch.where(targets > 0, p.log(), (1 - p).log()).mean(dim=1)
    assert torch.allclose(train.bce(logits.float(), targets.float(), activation).double(), expected, rtol=1e-5)
    for certain in (torch.tensor([[100.0, -100.0]]), torch.tensor([[-100.0, 100.0]])):
        certain.requires_grad_()
        loss = train.bce(certain, torch.tensor([[1.0, 0.0]]), activation)
        loss.sum().backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(certain.grad).all()


class Level(torch.nn.Module):
    """Scores that depend on the crop, but not on the precision."""

    def forward(self, x):
        return (x.mean(dim=(1, 2, 3))[:, None].expand(-1, 12) + 42) / 2


def test_scores_are_the_mean_over_a_clips_test_time_crops_weighted_by_amplitude(sets, run):
    validation_set, model = sets[1].subset(np.arange(24)), Level()
    config = replace(run.config, test_crops=3)
    scores = inference.predict_scores(model, validation_set, config)
    assert inference.predict_scores(model, validation_set.subset(np.arange(0)), config).shape == (0, scores.shape[1])
    unequal = 0
    rows, offsets = augment.tta_crops(validation_set.lengths, config)
    for row in range(len(validation_set)):
        x = validation_set.crops(rows[rows == row], offsets[rows == row], 128)
        with torch.inference_mode(), inference.autocast(torch.device("cpu")):
            each = model(x).sigmoid().numpy()
        amplitude = (10 ** (x / 10)).mean(dim=(1, 2, 3)).sqrt()
        assert np.allclose(scores[row], np.average(each, axis=0, weights=amplitude.numpy()), atol=1e-5)
        unequal += not np.allclose(scores[row], each.mean(axis=0), atol=1e-4)
    assert unequal


def test_muon_steps_equally_far_in_all_directions_of_a_filter_and_adamw_trains_the_rest(tiny, few):
    torch.manual_seed(0)
    for shape in ((16, 40), (40, 16)):
        matrix = torch.randn(shape)
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        found = left.T @ muon.orthogonal(matrix) @ right.T  # diagonal, with the singular values
        assert torch.allclose(found, found.diagonal().diag(), atol=1e-3)
        assert found.diagonal().min() > 0.6
        assert found.diagonal().max() < 1.3
    trainer = train.Trainer(tiny, few[0], replace(TINY, optimizer="muon", learning_rate=0.01), "Deep CNN")
    trainer.update(trainer.model(torch.randn(8, 1, 128, 128)).square().mean())
    before = tiny.state_dict()
    for name, parameter in trainer.model.named_parameters():
        step = (parameter - before[name]).detach()
        if parameter.ndim == 4:
            assert 0.06 < torch.linalg.svdvals(step.flatten(1)).max() < 0.13  # ten times the learning rate
        else:
            assert step.abs().max() < 0.011  # Adam's first step is the learning rate itself


def test_muon_is_the_authors_formula_with_weight_decay():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 4, 3, 3))
    optimizer, expected, momentum = muon.Muon([weight], lr=0.01), weight.detach().flatten(1).clone(), torch.zeros(8, 36)
    for gradient in torch.randn(3, 8, 36):
        weight.grad = gradient.view_as(weight)
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        x = 0.05 * gradient + 0.95 * momentum
        x = x / x.norm()
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        expected = expected * (1 - 0.1 * 0.1) - 0.1 * x
    assert torch.allclose(weight.flatten(1), expected, atol=1e-4)


def test_weights_decay_with_zero_gradients(tiny, few):
    config = replace(TINY, optimizer="muon", learning_rate=0.01, weight_decay=0.1)
    trainer = train.Trainer(tiny, few[0], config, "Deep CNN")
    trainer.update(0 * trainer.model(torch.randn(8, 1, 128, 128)).sum())
    before = tiny.state_dict()
    for name, parameter in trainer.model.named_parameters():
        left = 1 - 0.1 * 0.1 if parameter.ndim == 4 else 1 - 0.01 * 0.1
        assert torch.allclose(parameter, left * before[name], atol=1e-6)
