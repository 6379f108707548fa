"""The related work: its networks, its features, and baselines, which are runs without weights."""

import warnings
from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch
import torchvision

from utils import baselines, inference, mel, metrics, models, related_networks, runs, train
from utils.config import MelConfig, TrainingConfig

NETWORKS = ["piczak", "sb_cnn", "alexnet", "vgg19_bn", "inception_v3", "resnet50"]


@pytest.fixture(scope="module")
def three(sets):
    """Three clips of different labels to train on, and three others."""
    rows = np.unique(sets[0].targets.argmax(dim=1), return_index=True)[1]
    return sets[0].subset(rows[:3]), sets[1].subset(np.arange(3))


def test_the_networks_cost_what_their_authors_say():
    # Hershey et al.: 96 frames x 64 bands, 3087 labels; 62 M weights and 2.4 G multiplies, 28 M, 30 M and 1.9 G.
    def cost(network):
        return models.cost({"name": "ImageNetwork", "n_classes": 3087, "network": network}, 64, 96)

    assert cost("vgg19_bn")["MMAC"] == pytest.approx(2400, rel=0.05)
    assert cost("inception_v3")["parameters"] == pytest.approx(28e6, rel=0.05)
    assert cost("resnet50")["parameters"] == pytest.approx(30e6, rel=0.05)
    assert cost("resnet50")["MMAC"] == pytest.approx(1900, rel=0.05)
    piczak = models.PiczakCNN(50)
    assert piczak.layers[:7](piczak.channels(torch.zeros(1, 1, 128, 128))).shape == (1, 80, 1, 10)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_overfits_three_clips(name, three):
    torch.manual_seed(0)
    model = models.MODELS[name].build(12, "quick").train()
    x, targets = three[0].crops(torch.arange(3), torch.zeros(3, dtype=torch.int64), 128), three[0].targets
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(40):
        loss = train.bce(model(x), targets, "sigmoid").mean()
        if loss < 0.1:  # knowing only the number of labels gives 0.29
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss < 0.1


def test_inception_starts_from_imagenet_weights(monkeypatch):
    imagenet = torchvision.models.inception_v3(weights=None, init_weights=False).state_dict()
    monkeypatch.setattr(torchvision.models.Inception_V3_Weights, "get_state_dict", lambda *_, **__: imagenet)
    model = models.MODELS["inception_v3"].build(5, "full", pretrained=True)
    last = "Mixed_7c.branch1x1.conv.weight"
    assert torch.equal(model.network.state_dict()[last], imagenet[last])
    assert model.state_dict().keys() == models.build(model.config).state_dict().keys()


@pytest.mark.parametrize("name", ["piczak", "sb_cnn", "inception_v3"])
def test_a_loaded_run_gives_the_saved_scores(name, three, tmp_path):
    config = TrainingConfig(epochs=2, activation="sigmoid")  # two: training continues after an evaluation
    run = train.fit(models.MODELS[name].build(12, "quick"), *three, config, tmp_path / name, name)
    assert np.allclose(inference.score_run(run, three[1]), run.scores, atol=1e-5)
    assert run.has_weights and not run.pretrained
    assert run.cost()["parameters"] == sum(p.numel() for p in run.models()[0].parameters())


def test_deltas_are_the_slope_of_nine_frames():
    x = np.random.default_rng(0).normal(size=(60, 101)).astype(np.float32)
    expected = librosa.feature.delta(x, width=9, mode="nearest")
    assert np.allclose(related_networks.deltas(torch.from_numpy(x)[None, None])[0, 0], expected, atol=1e-5)


def test_features_are_finite_and_50_for_every_clip(cache, competition):
    settings = MelConfig()
    silent, one_frame = np.full((128, 200), -100, np.float16), cache[competition.curated["fname"].iloc[0]][:, :1]
    some = [baselines.features(x, settings) for x in (silent, one_frame, cache[competition.curated["fname"].iloc[1]])]
    assert np.isfinite(some).all() and np.shape(some) == (3, 50)
    assert np.allclose(some[1][25:], 0)  # one frame does not vary


def test_features_tell_a_tone_from_noise():
    settings, seconds = MelConfig(), np.arange(44_100) / 44_100
    tone = mel.log_mel(0.4 * np.sin(2 * np.pi * 3000 * seconds), settings)
    noise = mel.log_mel(0.1 * np.random.default_rng(0).standard_normal(44_100), settings)
    of_tone, of_noise = (dict(zip(baselines.FEATURES, baselines.features(x, settings))) for x in (tone, noise))
    band = tone.mean(axis=1).argmax()
    assert of_tone["centroid, mean"] == pytest.approx(band, abs=1) == pytest.approx(of_tone["roll-off, mean"], abs=1)
    assert of_tone["bandwidth, mean"] < 1 < 30 < of_noise["bandwidth, mean"]
    assert of_tone["flatness, mean"] < -40 < -2 < of_noise["flatness, mean"]  # dB
    louder = baselines.features(noise + 6, settings) - baselines.features(noise, settings)
    assert louder[baselines.FEATURES.index("level, mean")] == pytest.approx(6)


@pytest.mark.parametrize("name", baselines.TITLES)
def test_a_baseline_beats_chance_even_if_a_class_has_no_clip(name, sets, tmp_path):
    known = sets[0].targets[:, 0].numpy() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = baselines.fit(name, sets[0].subset(known), sets[1], tmp_path / name)
    chance = metrics.lwlrap(run.targets, np.random.default_rng(0).random(run.targets.shape))
    assert run.summary()["LWLRAP"] > 2 * chance
    assert name == "knn" or (run.scores < 1).all()  # ties at 1 would take the worst rank
    assert (run.scores[:, 0] == 0).all()


def test_a_few_clips_are_enough_for_a_baseline_also_under_other_names(three, tmp_path):
    run = baselines.fit("knn", *three, tmp_path / "knn")
    assert run.scores.shape == (3, 12)
    renamed = three[0].subset(np.arange(3))
    renamed.table["fname"] = "noisy/" + renamed.table["fname"]
    joined = renamed.subset(np.arange(1)).join(renamed.subset(np.arange(1, 3)))
    assert np.array_equal(baselines.fit("knn", joined, three[1], tmp_path / "renamed").scores, run.scores)


def test_a_baseline_is_found_but_not_used_to_score_other_clips(sets, three, tmp_path, monkeypatch):
    monkeypatch.setenv("FAT_WORK", str(tmp_path))
    folder = tmp_path / "runs" / "mini"
    baseline = baselines.fit("knn", *sets, folder / "knn-quick")
    assert not baseline.has_weights and not list(baseline.folder.glob("*.safetensors"))
    with pytest.raises(ValueError, match="knn-quick is a baseline, which has only scores"):
        inference.score_run(baseline, sets[1])
    with pytest.raises(ValueError, match="knn-quick is a baseline, which has only scores"):
        runs.open_run(baseline.folder)
    with pytest.raises(FileNotFoundError, match="There is no run"):
        runs.best_run()
    config = replace(models.MODELS["sb_cnn"].config("quick"), epochs=1)
    train.fit(models.MODELS["sb_cnn"].build(12, "quick"), three[0], sets[1], config, folder / "sb_cnn-quick", "SB-CNN")
    assert [run.name for run in runs.find_runs(folder)] == ["knn-quick", "sb_cnn-quick"]
    assert runs.best_run().name == "sb_cnn-quick"
    assert np.isnan(baseline.cost()["MMAC"]) and baseline.cost()["seconds"] > 0
