import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from utils import models


def test_the_deep_cnn_is_small_and_indifferent_to_loudness():
    model = models.DeepCNN(80).eval()
    assert sum(p.numel() for p in model.parameters()) < 5e6
    x = 10 * torch.randn(2, 1, 128, 128) - 40
    assert model(x).shape == (2, 80)
    assert torch.allclose(model(x), model(x + 12), atol=1e-3)


def test_build_gives_the_model_that_config_describes():
    model = models.DeepCNN(7, width=4, dropout=0.1)
    again = models.build(model.config)
    assert [p.shape for p in again.parameters()] == [p.shape for p in model.parameters()]
    assert again.config == model.config
    with pytest.raises(ValueError, match="'ResNet' is not a model of this kit"):
        models.build({"name": "ResNet"})


def test_transfer_takes_the_weights_of_the_file_and_trains_the_last_block(tmp_path):
    imagenet = timm.create_model("vgg19").eval()
    safetensors.torch.save_model(imagenet, tmp_path / "vgg19.safetensors")
    model = models.vgg19(12, tmp_path / "vgg19.safetensors").eval()
    imagenet.head.fc = model.classifier[-1]  # all but the output layer is ImageNet's, so with ours they are the same network
    x = 10 * torch.randn(2, 1, 128, 128)
    expected = imagenet(models.standardize(x).expand(-1, 3, -1, -1))
    assert torch.allclose(model(x), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    trains = [layer["kind"] for layer in models.layers(model) if layer["trains"]]
    assert trains == ["Conv2d"] * 4 + ["Linear"] * 3
    assert len([layer for layer in models.layers(model) if not layer["trains"]]) == 12
    assert all(layer["trains"] for layer in models.layers(models.vgg19(12)))
    assert model.frozen == 28  # up to the fourth pooling layer


def test_imagenet_weights_come_from_the_named_file_or_not_at_all(tmp_path, monkeypatch):
    assert models.imagenet_weights() is None  # the tests run offline, with an empty cache
    monkeypatch.setenv("FAT_VGG19_WEIGHTS", str(tmp_path / "absent.safetensors"))
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors, which is not a file"):
        models.imagenet_weights()
    (tmp_path / "absent.safetensors").write_bytes(b"")
    assert models.imagenet_weights() == tmp_path / "absent.safetensors"


def test_standardize_leaves_a_silent_clip_finite():
    x = models.standardize(torch.full((1, 1, 128, 128), -100.0))
    assert np.abs(x.numpy()).max() < 1
