"""The table of models: what each network is called, how it is built, and how each preset trains it."""

import inspect
import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .config import NO_AUGMENTATION, TrainingConfig
from .networks import VGG19, DeepCNN
from .related_networks import SBCNN, ImageNetwork, PiczakCNN

VGG19_HUB = "timm/vgg19.tv_in1k"  # torchvision's ImageNet weights


@dataclass(frozen=True)
class Entry:
    """A row of the table of models: a title, a network, and for each preset its options and training config."""

    title: str
    network: Callable[..., nn.Module]  # called with the number of classes and the options
    presets: dict[str, tuple[dict, TrainingConfig]]
    pretrained: bool = False  # starts from ImageNet weights, which the competition's rules forbid

    def config(self, preset: str) -> TrainingConfig:
        """Return the model's training config for this preset."""
        return self.presets[preset][1]

    def build(self, n_classes: int, preset: str, seed: int = 0, **options) -> nn.Module:
        """Build the model, not yet trained on sounds, alike for the same `seed`.

        `options` (as `width=32`) override the preset's.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.network(n_classes, **self.presets[preset][0] | options)


# The paper's text does not give widths, batch size and learning rate: these are common values, lower for VGG19, which
# has no batch normalization to keep it from diverging.
_FULL = TrainingConfig(epochs=400)
_FULL_VGG19 = replace(_FULL, learning_rate=1e-4)
_QUICK = TrainingConfig(
    epochs=70, max_steps=1000, optimizer="muon", learning_rate=3e-3, weight_decay=0.01, schedule="cosine",
    activation="sigmoid", crop="random", test_crops=8, mix_probability=0.5, resize_probability=0.4,
    spec_augment_probability=0.5, filter_probability=1.0,
)  # fmt: skip
_SMALL_CNN = {"width": 32, "stem": 16, "residual": True, "peak": True}
_BEST = replace(_QUICK, epochs=50, min_steps=3000, max_steps=None)
_QUICK_BEST = replace(_QUICK, epochs=20, max_steps=100)
_QUICK_VGG19 = replace(
    _QUICK, epochs=40, max_steps=200, optimizer="adam", learning_rate=1e-3, test_crops=1, **NO_AUGMENTATION
)  # fmt: skip
# The related work, as published except for three things. AdamW replaces the SGD of Piczak and of Salamon and Bello,
# with learning rates to match. Every class has a sigmoid, as in Hershey et al., because clips have several labels. An
# epoch has one random crop of each clip, where Piczak cut it into many segments, in batches of 1000; the crops also
# replace his random delays. Of SB-CNN's augmentation, resizing replaces time stretching and pitch shifting, mixing
# (with the labels of both) replaces background noise, and dynamic range compression has no counterpart.
# Hershey et al. searched for the learning rate and do not count in epochs: these values are ours.
_FULL_PICZAK = TrainingConfig(
    epochs=150, batch_size=100, learning_rate=3e-4, weight_decay=0.001, activation="sigmoid",
    crop="random", test_crops=8,
)  # fmt: skip
_FULL_SBCNN = replace(_FULL_PICZAK, epochs=50, learning_rate=1e-3, mix_probability=0.5, resize_probability=0.5)
_FULL_HERSHEY = replace(_FULL_PICZAK, epochs=100, batch_size=128, weight_decay=0.0)
_QUICK_SBCNN = replace(
    _QUICK, epochs=40, max_steps=120, optimizer="adam", spec_augment_probability=0.0, filter_probability=0.0
)
_QUICK_PICZAK = replace(_QUICK_VGG19, epochs=50, test_crops=8)
_QUICK_HERSHEY = replace(_QUICK_VGG19, epochs=1, max_steps=4)  # these networks need thousands of steps
_QUICK_TRANSFER = replace(_QUICK_VGG19, epochs=5, max_steps=40, learning_rate=1e-4, crop="start")

MODELS: dict[str, Entry] = {
    "deep_cnn": Entry("Deep CNN", DeepCNN, {
        "full": ({"width": 64}, _FULL),
        "quick": (_SMALL_CNN, replace(_QUICK, min_steps=600)),
    }),
    "vgg19_transfer": Entry("VGG19, transfer", VGG19, {
        "full": ({}, replace(_FULL_VGG19, epochs=100)),
        "quick": ({"downsample": 2}, _QUICK_TRANSFER),
    }, pretrained=True),
    "vgg19_no_weights": Entry("VGG19, no weights", VGG19, {
        "full": ({}, _FULL_VGG19),
        "quick": ({"width": 8, "downsample": 2}, _QUICK_VGG19),
    }),
    "best": Entry("Best", DeepCNN, {
        "full": (_SMALL_CNN, _BEST),
        "quick": (_SMALL_CNN, _QUICK_BEST),
    }),
    "piczak": Entry("Piczak's CNN", PiczakCNN, {
        "full": ({}, _FULL_PICZAK),
        "quick": ({"hidden": 1000}, _QUICK_PICZAK),
    }),
    "sb_cnn": Entry("SB-CNN", SBCNN, {
        "full": ({}, _FULL_SBCNN),
        "quick": ({}, _QUICK_SBCNN),
    }),
    "alexnet": Entry("AlexNet", ImageNetwork, {
        "full": ({"network": "alexnet"}, _FULL_HERSHEY),
        "quick": ({"network": "alexnet", "downsample": 2}, _QUICK_HERSHEY),
    }),
    "vgg19_bn": Entry("VGG19-BN", ImageNetwork, {
        "full": ({"network": "vgg19_bn"}, _FULL_HERSHEY),
        "quick": ({"network": "vgg19_bn", "downsample": 4}, _QUICK_HERSHEY),
    }),
    "inception_v3": Entry("Inception V3", ImageNetwork, {
        "full": ({"network": "inception_v3"}, replace(_FULL_HERSHEY, batch_size=64)),  # 128 take over 13 GB
        "quick": ({"network": "inception_v3", "downsample": 4}, _QUICK_HERSHEY),
    }),
    "resnet50": Entry("ResNet-50", ImageNetwork, {
        "full": ({"network": "resnet50"}, _FULL_HERSHEY),
        "quick": ({"network": "resnet50", "downsample": 4}, _QUICK_HERSHEY),
    }),
}  # fmt: skip


def imagenet_weights() -> Path | None:
    """Find the file with VGG19's ImageNet weights; None if there is none.

    Looks at FAT_VGG19_WEIGHTS, then at timm's hub (downloads 575 MB, once). Raises FileNotFoundError if the file in
    FAT_VGG19_WEIGHTS does not exist, and OSError if the hub's page can be read but the hub does not provide them, or
    there is no space for them.
    """
    import huggingface_hub.constants

    if local := os.environ.get("FAT_VGG19_WEIGHTS"):
        if not Path(local).is_file():
            raise FileNotFoundError(f"FAT_VGG19_WEIGHTS is {local}, which is not a file: correct or unset it.")
        return Path(local)
    cached = huggingface_hub.try_to_load_from_cache(VGG19_HUB, "model.safetensors")
    if isinstance(cached, str):
        return Path(cached)
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return None
    try:  # tried once here: the hub's own client retries for most of a minute
        urllib.request.urlopen(huggingface_hub.constants.ENDPOINT, timeout=5).close()
    except OSError:
        return None
    return Path(huggingface_hub.hf_hub_download(VGG19_HUB, "model.safetensors"))


def build(config: dict) -> nn.Module:
    """Build the untrained network that `model.config` describes. Raises ValueError as `network` does."""
    return network(config)()


def network(config: dict) -> Callable[[], nn.Module]:
    """Return what builds the network that `model.config` describes. Raises ValueError if it describes none."""
    networks = {entry.network.__name__: entry.network for entry in MODELS.values()}
    options = dict(config)
    name = options.pop("name", None)
    if name not in networks:
        raise ValueError(f"{name!r} is not a network of this kit, which has {', '.join(networks)}.")
    if options.keys() & {"weights", "pretrained"}:  # a shared run must not make us load a file
        raise ValueError("a config must not have weights to load.")
    try:
        inspect.signature(networks[name]).bind(**options)
    except TypeError as error:
        raise ValueError(f"{options} are not the options of a {name} of this kit: {error}.") from error
    return partial(networks[name], **options)


def cost(config: dict, n_mels: int, n_frames: int) -> dict[str, float]:
    """Return parameters and million multiply-accumulates (MMAC) per crop of the network described by `model.config`."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:  # computes nothing
        model = build(config).eval()
        model(torch.zeros(1, 1, n_mels, n_frames))
    return {"parameters": sum(p.numel() for p in model.parameters()), "MMAC": counter.get_total_flops() / 2e6}


def layers(model: nn.Module) -> pd.DataFrame:
    """Tabulate convolutions and dense layers: name, kind, weight shape, parameters and whether the layer is trained."""
    rows = [
        {
            "layer": name,
            "kind": "Conv2d" if isinstance(layer, nn.Conv2d) else "Linear",
            "weight": "x".join(map(str, layer.weight.shape)),
            "parameters": sum(p.numel() for p in layer.parameters()),
            "trains": layer.weight.requires_grad,
        }
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    return pd.DataFrame(rows)
