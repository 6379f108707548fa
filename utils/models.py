"""The three networks of the paper. All take dB spectrograms (clips, 1, n_mels, frames) and give logits (clips, classes)."""

import os
import urllib.request
from itertools import pairwise
from pathlib import Path

import huggingface_hub
import timm
import torch
from torch import Tensor, nn

VGG19_HUB = "timm/vgg19.tv_in1k"  # torchvision's ImageNet weights


def standardize(x: Tensor) -> Tensor:
    """Each spectrogram with mean 0 and standard deviation 1, so that its loudness does not matter."""
    deviation, mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True)
    return (x - mean) / (deviation + 1e-5)


class DeepCNN(nn.Module):
    """Our reading of the paper's own, "relatively small" CNN (section IV.A): convolutions, pooling, ReLU and a dense output.

    The paper gives neither depth nor widths. Here: four blocks of two 3x3 convolutions with batch normalisation, each halving
    both axes; then the mean over time, the maximum over frequency, dropout and one dense layer. `width` channels in the first
    block, doubled in each further one.
    """

    def __init__(self, n_classes: int, width: int = 64, dropout: float = 0.2) -> None:
        super().__init__()
        self.config = {"name": "DeepCNN", "n_classes": n_classes, "width": width, "dropout": dropout}
        channels = [1, width, 2 * width, 4 * width, 8 * width]
        self.blocks = nn.Sequential(*(_block(i, o) for i, o in pairwise(channels)))
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(channels[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(standardize(x))
        x = x.mean(dim=3).amax(dim=2)
        return self.dense(self.dropout(x))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
    )  # fmt: skip


class VGG19(nn.Module):
    """timm's VGG19 with a new output layer, on spectrograms as grey pictures. Make it with `vgg19`."""

    def __init__(self, n_classes: int, **timm_options) -> None:
        super().__init__()
        self.config = {"name": "VGG19", "n_classes": n_classes}
        network = timm.create_model("vgg19", num_classes=n_classes, **timm_options)
        self.features = network.features
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(7), nn.Flatten(),
            _dense(network.pre_logits.fc1), nn.ReLU(inplace=True), nn.Dropout(0.5),
            _dense(network.pre_logits.fc2), nn.ReLU(inplace=True), nn.Dropout(0.5),
            network.head.fc,
        )  # fmt: skip
        self.frozen = 0  # so many of the first layers do not train

    def forward(self, x: Tensor) -> Tensor:
        return self.late(self.early(x))

    def early(self, x: Tensor) -> Tensor:
        """What the frozen layers make of spectrograms; with none frozen, the grey pictures themselves."""
        with torch.no_grad():
            return self.features[: self.frozen](standardize(x).expand(-1, 3, -1, -1))

    def late(self, early: Tensor) -> Tensor:
        """Logits (clips, classes) from what `early` gave."""
        return self.classifier(self.features[self.frozen :](early))


def _dense(convolution: nn.Conv2d) -> nn.Linear:
    """A convolution with its whole input as the matrix product that it is: the same numbers, and much faster to train."""
    weight = convolution.weight.flatten(1)
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight.detach()), convolution.bias
    return layer


class Late(nn.Module):
    """The part of a VGG19 that trains, by itself: from what `early` gave to logits."""

    def __init__(self, model: VGG19) -> None:
        super().__init__()
        self.model = model

    def forward(self, early: Tensor) -> Tensor:
        return self.model.late(early)


def vgg19(n_classes: int, weights: str | Path | None = None) -> VGG19:
    """VGG19 (paper, section IV.B): the transfer model if `weights` is an ImageNet weights file, else all of it random.

    In the transfer model only the last convolution block (4 convolutions) and the fully connected layers train.
    """
    if weights is None:
        return VGG19(n_classes)
    return freeze_early_layers(VGG19(n_classes, pretrained=True, pretrained_cfg_overlay={"file": str(weights)}))


def freeze_early_layers(model: VGG19) -> VGG19:
    """Let only the last convolution block, behind the last but one pooling layer, and the fully connected layers train."""
    pools = [i for i, layer in enumerate(model.features) if isinstance(layer, nn.MaxPool2d)]
    model.frozen = pools[-2] + 1
    model.features[: model.frozen].requires_grad_(False)
    return model


def imagenet_weights() -> Path | None:
    """File with VGG19's ImageNet weights: FAT_VGG19_WEIGHTS, or timm's hub (a download of 575 MB, once); None if it cannot be had.

    Raises FileNotFoundError if FAT_VGG19_WEIGHTS names a file that is not there.
    """
    if local := os.environ.get("FAT_VGG19_WEIGHTS"):
        if not Path(local).is_file():
            raise FileNotFoundError(f"FAT_VGG19_WEIGHTS is {local}, which is not a file: correct or unset it.")
        return Path(local)
    cached = huggingface_hub.try_to_load_from_cache(VGG19_HUB, "model.safetensors")
    if isinstance(cached, str):
        return Path(cached)
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return None
    try:  # asked once here, for the hub's own client tries for most of a minute
        urllib.request.urlopen(huggingface_hub.constants.ENDPOINT, timeout=5).close()
        return Path(huggingface_hub.hf_hub_download(VGG19_HUB, "model.safetensors"))
    except OSError:
        return None


def build(config: dict) -> nn.Module:
    """The untrained model that `model.config` describes. Raises ValueError on a name that is not a model's."""
    models = {"DeepCNN": DeepCNN, "VGG19": VGG19}
    options = dict(config)
    name = options.pop("name", None)
    if name not in models:
        raise ValueError(f"{name!r} is not a model of this kit, which has {', '.join(models)}.")
    return models[name](**options)


def layers(model: nn.Module) -> list[dict]:
    """One row per convolution or dense layer: its name, kind, shape of weights, parameters and whether it trains."""
    return [
        {
            "layer": name,
            "kind": type(layer).__name__,
            "weight": "x".join(map(str, layer.weight.shape)),
            "parameters": sum(p.numel() for p in layer.parameters()),
            "trains": layer.weight.requires_grad,
        }
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
