"""Networks of the paper and of `best`: from dB spectrograms (clips, 1, n_mels, frames) to logits (clips, classes)."""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def standardize(x: Tensor) -> Tensor:
    """Give each spectrogram mean 0 and standard deviation 1, so that loudness does not matter."""
    return F.layer_norm(x, x.shape[1:])


def peak_normalize(x: Tensor) -> Tensor:
    """Map each spectrogram's 80 dB below its loudest point to -2 to 2.

    Like `standardize`, but the silence around a short sound does not change how it is scaled either.
    """
    return (x - x.amax(dim=(1, 2, 3), keepdim=True)) / 20 + 2


class Logits(nn.Linear):
    """The output layer, in float32 whatever the others compute in.

    In half precision scores tie, and ties share the worst rank.
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False):  # there is none for the meta device
            return super().forward(x.float())


class Add(nn.Module):
    """The sum of two outputs: a layer of its own, so that `explain` has a rule for it."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return x + other


class DeepCNN(nn.Module):
    """Our reading of the paper's "relatively small" CNN (section IV.A): convolutions, pooling, ReLU, a dense output.

    The paper's text gives neither depth nor widths. Here: four blocks of two 3x3 convolutions with batch normalization,
    each halving both axes; then the mean over time, the maximum over frequency, dropout and one dense layer. The first
    block has `width` channels, and each further block twice as many.

    `stem`: channels of a 5x5 convolution of stride 2 and a pooling layer before the blocks, which reduce the
    spectrogram to a sixteenth, as ImageNet networks begin; 0: none. The last block then does not pool. `residual`: each
    block's input, through a 1x1 convolution, is added before its last ReLU. `peak`: the input is peak-normalized
    instead of standardized.
    """

    # Source: the blocks and the pooling are those of mhiro2's "Simple 2D-CNN Classifier with PyTorch",
    # https://www.kaggle.com/code/mhiro2/simple-2d-cnn-classifier-with-pytorch

    def __init__(
        self, n_classes: int, width: int = 64, stem: int = 0, residual: bool = False, peak: bool = False,
        dropout: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config = {"name": "DeepCNN", "n_classes": n_classes, "width": width, "stem": stem}
        self.config |= {"residual": residual, "peak": peak, "dropout": dropout}
        channels = [stem or 1, width, 2 * width, 4 * width, 8 * width]
        self.stem = nn.Sequential(*_convolution(1, stem, 5, stride=2), nn.AvgPool2d(2)) if stem else nn.Identity()
        self.blocks = nn.Sequential(*(_block(i, o) for i, o in pairwise(channels)))
        if stem:
            self.blocks[-1][-1] = nn.Identity()
        if residual:
            self.blocks = nn.Sequential(*map(Residual, self.blocks))
        self.mean = nn.AdaptiveAvgPool2d((None, 1))  # over time; a layer, so that `explain` has a rule for it
        self.dropout = nn.Dropout(dropout)
        self.dense = Logits(channels[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = peak_normalize(x) if self.config["peak"] else standardize(x)
        x = self.mean(self.blocks(self.stem(x)))
        return self.dense(self.dropout(x.amax(dim=(2, 3))))


def _convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(inputs, outputs), *_convolution(outputs, outputs), nn.AvgPool2d(2))


class Residual(nn.Module):
    """A block of the Deep CNN whose input is added, through a 1x1 convolution, before its last ReLU and its pooling."""

    # Source: He et al. 2016, Deep residual learning for image recognition: the projection shortcut.

    def __init__(self, block: nn.Sequential) -> None:
        super().__init__()
        self.convolutions, self.end = block[:-2], block[-2:]
        self.shortcut = nn.Sequential(*_convolution(block[0].in_channels, block[3].out_channels, 1)[:-1])
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.add(self.convolutions(x), self.shortcut(x)))


class VGG19(nn.Module):
    """VGG19 on spectrograms as grayscale images (paper, section IV.B): timm's layers, with a new output layer.

    `weights`: a file with timm's ImageNet weights. Only the last block of four convolutions and the dense layers are
    then trained. Without it, all weights are random and trained. `width`: channels of the first block, of which all
    others are multiples; 64 is VGG19. The spectrogram is averaged over squares of `downsample` first.
    """

    def __init__(self, n_classes: int, weights: str | Path | None = None, width: int = 64, downsample: int = 1) -> None:
        import timm  # takes seconds, so imported only here
        from timm.models.vgg import VGG, cfgs

        super().__init__()
        self.config = {"name": "VGG19", "n_classes": n_classes, "width": width, "downsample": downsample}
        self.pretrained, self.n_frozen = weights is not None, 0  # number of first layers that are frozen
        self.downsample = nn.AvgPool2d(downsample)
        layers = [channels if channels == "M" else channels * width // 64 for channels in cfgs["vgg19"]]
        if weights is not None:
            network = timm.create_model("vgg19", pretrained=True, pretrained_cfg_overlay={"file": str(weights)})
            hidden = [_dense(network.pre_logits.fc1), _dense(network.pre_logits.fc2)]
        else:
            network = VGG(layers)
            hidden = [nn.Linear(8 * width * 7 * 7, 64 * width), nn.Linear(64 * width, 64 * width)]
        self.features = network.features
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(7), nn.Flatten(),
            hidden[0], nn.ReLU(inplace=True), nn.Dropout(0.5),
            hidden[1], nn.ReLU(inplace=True), nn.Dropout(0.5),
            Logits(64 * width, n_classes),
        )  # fmt: skip
        if self.pretrained:
            self.freeze()

    def freeze(self) -> None:
        """Freeze all layers up to and including the second-to-last pooling layer."""
        pools = [i for i, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d)]
        self.n_frozen = pools[-2] + 1
        self.features[: self.n_frozen].requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.frozen_features(x))

    def frozen_features(self, x: Tensor) -> Tensor:
        """Return the output of the frozen layers; with none frozen, the grayscale images themselves."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.n_frozen):
            return self.features[: self.n_frozen](self.downsample(standardize(x)).expand(-1, 3, -1, -1))

    @property
    def head(self) -> nn.Sequential:
        """The trained layers: from `frozen_features` to logits (clips, classes)."""
        return nn.Sequential(self.features[self.n_frozen :], self.classifier)


def _dense(convolution: nn.Conv2d) -> nn.Linear:
    """Turn a convolution whose kernel covers its input into the equivalent dense layer, which trains much faster."""
    weight = convolution.weight.flatten(1)
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight.detach()), convolution.bias
    return layer
