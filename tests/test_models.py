import pytest
import safetensors.torch
import timm
import torch
from torch.nn import functional as F

from utils import models, networks


def test_the_deep_cnn_is_small_and_invariant_to_loudness():
    model = models.DeepCNN(80).eval()
    assert sum(p.numel() for p in model.parameters()) < 5e6
    x = 10 * torch.randn(2, 1, 128, 128) - 40
    assert model(x).shape == (2, 80)
    assert torch.allclose(model(x), model(x + 12), atol=1e-3)


@pytest.mark.parametrize("preset", ["full", "quick"])
@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_gives_logits_and_can_be_rebuilt_from_its_config(name, preset):
    entry = models.MODELS[name]
    with torch.device("meta"):  # shapes without values
        model = entry.build(12, preset)
        again = models.build(model.config)
        assert model.eval()(torch.zeros(2, 1, 128, 128)).shape == (2, 12)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert again.config == model.config
    if "width" in model.config:
        narrow = entry.build(12, preset, width=2)
        assert narrow.config == model.config | {"width": 2}
        assert narrow(10 * torch.randn(2, 1, 128, 300)).shape == (2, 12)


def test_first_weights_depend_on_the_seed_alone():
    first, again, other = (models.MODELS["deep_cnn"].build(3, "quick", seed).dense.weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_only_the_kits_networks_are_built_and_no_file_is_read():
    with pytest.raises(ValueError, match="'ResNet' is not a network of this kit"):
        models.build({"name": "ResNet"})
    with pytest.raises(ValueError, match="a config must not have weights to load"):
        models.build({"name": "VGG19", "n_classes": 3, "weights": "any.pth"})
    with pytest.raises(ValueError, match="a config must not have weights to load"):
        models.build({"name": "ImageNetwork", "n_classes": 3, "network": "alexnet", "pretrained": True})


@pytest.mark.parametrize("build", [models.DeepCNN, models.VGG19])
def test_logits_are_float32_even_if_layers_compute_in_bfloat16(build):
    torch.manual_seed(0)
    model = build(80, width=4).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = model(10 * torch.randn(8, 1, 128, 128) - 40)
    assert logits.dtype == torch.float32
    assert all(len(clip.unique()) == 80 for clip in logits)  # bfloat16 has many ties, which share the worst rank


def test_transfer_loads_the_weights_and_trains_the_last_block(tmp_path):
    imagenet = timm.create_model("vgg19").eval()
    safetensors.torch.save_model(imagenet, tmp_path / "vgg19.safetensors")
    model = models.VGG19(12, tmp_path / "vgg19.safetensors").eval()
    imagenet.head.fc = model.classifier[-1]  # only the output layer is not from ImageNet
    x = 10 * torch.randn(1, 1, 128, 128)
    with torch.inference_mode():
        expected = imagenet(networks.standardize(x).expand(-1, 3, -1, -1))
        assert torch.allclose(model(x), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
        assert torch.equal(model.head(model.frozen_features(x)), model(x))
    layers = models.layers(model)
    assert layers["kind"][layers["trains"]].tolist() == ["Conv2d"] * 4 + ["Linear"] * 3
    assert (~layers["trains"]).sum() == 12
    assert model.pretrained
    assert model.n_frozen == 28  # up to the fourth pooling layer


def test_without_weights_all_of_vgg19_is_trained():
    model = models.VGG19(12, width=4)
    assert not model.pretrained
    assert models.layers(model)["trains"].all()


def test_imagenet_weights_come_from_the_named_file(tmp_path, monkeypatch):
    assert models.imagenet_weights() is None  # the tests run offline, with an empty cache
    monkeypatch.setenv("FAT_VGG19_WEIGHTS", str(tmp_path / "absent.safetensors"))
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors, which is not a file"):
        models.imagenet_weights()
    (tmp_path / "absent.safetensors").write_bytes(b"")
    assert models.imagenet_weights() == tmp_path / "absent.safetensors"


def test_standardize_leaves_a_silent_clip_finite():
    assert networks.standardize(torch.full((1, 1, 128, 128), -100.0)).abs().max() < 1


def test_peak_normalization_depends_on_neither_loudness_nor_the_silence_around():
    x = (20 * torch.randn(1, 1, 128, 64)).clamp(-40, 40)
    x[0, 0, 5, 5] = 40.0
    expected = networks.peak_normalize(x)
    assert expected.max() == 2
    assert torch.equal(networks.peak_normalize(F.pad(x, (20, 44), value=-40.0))[..., 20:84], expected)
    assert torch.allclose(networks.peak_normalize(x - 30), expected, atol=1e-5)
    assert torch.isfinite(networks.peak_normalize(torch.full((1, 1, 128, 128), -100.0))).all()
