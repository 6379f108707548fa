import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from utils import audio, explain, inference, mel, models, networks, predict
from utils.config import MelConfig
from utils.run_folder import Run

COVERED = ["deep_cnn", "vgg19_no_weights", "piczak", "sb_cnn", "alexnet", "vgg19_bn"]


def example(n_frames=128):
    torch.manual_seed(0)
    return 10 * torch.randn(2, 1, 128, n_frames) - 40, torch.tensor([3, 5])


def settled(network):
    """Set its biases and batch normalization to random values, as if it had been trained."""
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 2)
            torch.nn.init.normal_(layer.bias, std=0.1)
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
    torch.nn.init.normal_(next(layer for layer in network.modules() if isinstance(layer, networks.Logits)).bias)
    return network.eval()


@pytest.mark.parametrize("build", [
    *(lambda name=name: models.MODELS[name].build(12, "quick") for name in COVERED),
    lambda: models.DeepCNN(12, width=4),
], ids=[*COVERED, "deep_cnn as in the paper"])  # fmt: skip
def test_relevances_add_up_to_the_logit(build):
    x, labels = example()
    network = settled(build())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    points, sums = explain.relevance([network], x, labels)
    assert points.shape == (2, 128, 128)
    bias = next(layer for layer in network.modules() if isinstance(layer, networks.Logits)).bias
    with torch.no_grad():
        logits = network(x)[[0, 1], labels]
    assert torch.allclose(sums + bias[labels], logits, rtol=1e-3, atol=1e-3)
    assert ((points.sum(dim=(1, 2)) - sums).abs() <= 1e-3 * sums.abs().clamp(min=1)).all()
    assert points.abs().sum() > 0
    after = network.state_dict()  # merging layers is undone
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_at_an_addition_relevance_goes_to_what_raised_the_sum():
    parts = [torch.tensor([3.0, 1.0]), torch.tensor([-1.0, 1.0])]
    for part in parts:
        part.requires_grad_()
    total = explain._in_proportion(None, parts, sum(parts))
    assert torch.equal(total, sum(parts))
    shares = torch.autograd.grad(total.sum(), parts)
    assert torch.allclose(torch.stack(shares), torch.tensor([[1, 0.5], [0, 0.5]]), atol=1e-4)


def test_several_networks_give_the_relevance_of_their_mean_logit():
    x, labels = example(n_frames=150)
    both = [settled(models.DeepCNN(12, width=4, stem=4)) for _ in range(2)]
    (one, _), (other, _) = (explain.relevance([network], x, labels) for network in both)
    points, sums = explain.relevance(both, x, labels)
    assert torch.allclose(points, (one + other) / 2, atol=1e-6)
    assert torch.allclose(points.sum(dim=(1, 2)), sums, rtol=1e-3)


@pytest.mark.parametrize("name, layer", [
    ("resnet50", r"network\.layer1\.0 \(Bottleneck\)"),
    ("inception_v3", r"network\.Conv2d_3b_1x1 \(BasicConv2d\)"),
])  # fmt: skip
def test_an_uncovered_network_is_rejected_with_its_layer(name, layer):
    with torch.device("meta"):
        network = models.MODELS[name].build(12, "quick")
    with pytest.raises(ValueError, match=f"no rule for {name}'s layer {layer}"):
        explain.relevance([network], *example())


class TwoPaths(models.DeepCNN):
    def forward(self, x):
        return super().forward(x) + super().forward(x.flip(3))


def test_a_network_whose_relevances_do_not_add_up_is_refused():
    with pytest.raises(ValueError, match="do not add up to the logit"):
        explain.relevance([settled(TwoPaths(12, width=4, stem=4))], *example())
    network = models.DeepCNN(12, width=4, stem=4)
    network.dense = torch.nn.Linear(network.dense.in_features, 12)
    with pytest.raises(ValueError, match="no rule for DeepCNN's layer the output"):
        explain.relevance([network], *example())


def test_without_zennit_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "zennit.composites", None)
    with pytest.raises(ImportError, match="pip install zennit"):
        explain.relevance([models.DeepCNN(12, width=2, stem=2)], *example())


def test_runs_that_can_be_explained_are_found_in_order(run, tmp_path):
    settings = (run.folder / "settings.json").read_text()
    (tmp_path / "settings.json").write_text(settings.replace('"model"', '"no model"'))
    baseline = Run(tmp_path)
    assert explain.explainable([baseline, run]) == [run]
    with pytest.raises(ValueError, match="run 03_cnn"):
        explain.explainable([baseline])


class Deleted(torch.nn.Module):
    """A network whose score is the share of points at -80 dB."""

    def forward(self, x):
        self.gone, self.loudest = (x == -80)[:, 0].float(), x.amax(dim=(1, 2, 3))
        return self.gone.mean(dim=(1, 2)).logit()[:, None]


def test_whole_squares_are_deleted_the_highest_first_but_not_the_loudest_point():
    generator, network = torch.Generator().manual_seed(0), Deleted()
    x, order = torch.rand(2, 1, 128, 126, generator=generator), torch.rand(2, 128, 126, generator=generator)
    x[:, 0, 0, 0], x[:, 0, 9, 9] = -80, 1
    order[:, 9, 9] = 100  # its square is the first, but for the loudest point
    table = explain.deletion([network], x, torch.zeros(2, dtype=torch.int64), {"any": order}, "sigmoid", size=4)
    assert table.loc[0.2, "any"] == pytest.approx(198 * 16 / (128 * 126), abs=2e-4)  # of 992 squares
    gone, mean = (torch.nn.functional.avg_pool2d(some, 4) for some in (network.gone, order))
    for deleted, value in zip(gone >= 15 / 16, mean):
        assert value[deleted].min() >= value[~deleted].max()
    assert (network.loudest == 1).all()


def test_deleting_the_most_relevant_points_lowers_scores_more_than_random_ones(run, sets):
    rows, labels = torch.nonzero(sets[1].targets, as_tuple=True)
    x = sets[1].crops(rows, torch.zeros_like(rows), 128)
    trained = run.models()
    points, _ = explain.relevance(trained, x, labels)
    orders = {"relevant": points, "random": torch.rand(points.shape, generator=torch.Generator().manual_seed(0))}
    table = explain.deletion(trained, x, labels, orders, run.config.activation, size=1)
    with torch.no_grad():
        scores = inference.activate(trained[0](x), run.config.activation)
    assert np.allclose(table.loc[0], scores.gather(1, labels[:, None]).mean())
    assert (table["relevant"] < table["random"])[0.02:0.05].all()  # later, little is left to lower


def test_the_relevance_of_each_class_is_told_by_band():
    points = torch.zeros(2, 3, 4)  # bands, frames
    points[0, 1], points[1, 2, :2] = 1, -1
    share = explain.relevance_over_frequency(points, torch.tensor([1, 0]), ["Bark", "Run"])
    assert share.T.to_dict("list") == {"Bark": [0, 0, -1], "Run": [0, 1, 0]}


@pytest.mark.parametrize("name", ["deep_cnn", "piczak", "vgg19_no_weights"])
def test_gradient_times_input_is_what_deletion_takes_from_the_logit_to_first_order(name):
    x, labels = example()
    networks = [models.MODELS[name].build(12, "quick", seed).eval() for seed in range(2)]
    points = explain.gradient_times_input(networks, x, labels)
    step = 1e-4 * (x - x.amin(dim=(1, 2, 3), keepdim=True)) * (points > 0)[:, None]
    with torch.no_grad():
        lost = sum(network(x) - network(x - step) for network in networks) / 2
    lost = 1e4 * lost.gather(1, labels[:, None])[:, 0]
    assert torch.allclose(points.clamp(min=0).sum(dim=(1, 2)), lost, rtol=0.02)


def test_a_sound_is_split_into_its_relevant_part_and_the_rest():
    settings = MelConfig()
    t = np.arange(127 * settings.hop_length) / settings.sample_rate
    low, high = 0.3 * np.sin(2 * np.pi * 500 * t), 0.3 * np.sin(2 * np.pi * 6000 * t)
    samples = (low + high).astype(np.float32)
    points = np.full((128, 128), -1.0)
    points[:40] = 1  # up to 1.1 kHz
    kept, rest = explain.sonify(samples, points, settings)
    assert np.allclose(kept + rest, samples, atol=1e-6)
    inner = slice(4000, -4000)
    assert np.abs(kept - low)[inner].max() < 0.02
    assert np.abs(rest - high)[inner].max() < 0.02
    short = explain.sonify(samples[:40_000], points, settings)  # a clip shorter than a crop
    assert len(short[0]) == len(short[1]) == 40_000
    assert not explain.sonify(samples, -np.abs(points), settings)[0].any()  # nothing supports the label


def test_the_command_line_plots_what_supports_the_top_class(run, sets, tmp_path, refused):
    path, plot = sets[1].table["path"].iloc[0], tmp_path / "plot.png"
    predict.main([path, "--run", str(run.folder), "--top", "1", "--explain", str(plot)])
    assert plot.read_bytes().startswith(b"\x89PNG")
    long = tmp_path / "long.wav"
    rate = run.mel.sample_rate
    soundfile.write(long, np.concatenate([np.zeros(4 * rate), audio.load_clip(path, run.mel)]), rate)
    label, begin, crop, points = predict.explain_top_class(long, run)
    assert label in predict.top_classes(predict.tag(long, run), 1)["class"].tolist()
    assert crop.shape == points.shape == (128, 128)
    recording = mel.clip_to_log_mel(long, replace(run.mel, trim_db=math.inf))
    there = recording[:, round(begin * rate / run.mel.hop_length) :][:, :128]
    shown = np.maximum(crop, recording.min())  # 80 dB below the recording's loudest point, not the crop's
    assert np.abs(shown[:, : there.shape[1]] - there).max() < 0.1  # the cache rounds to float16
    one_crop = Run(run.folder)  # as with the preset full; the first two seconds are silent
    one_crop.record["config"]["test_crops"] = 1
    assert predict.explain_top_class(long, one_crop)[1] == begin
    soundfile.write(tmp_path / "other.wav", np.zeros(100), 8000)
    assert "give one file" in refused(predict.main, path, tmp_path / "other.wav", "--explain", plot)
