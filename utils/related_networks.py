"""The networks of the paper's related work, and how each departs from its publication.

They map dB spectrograms (clips, 1, n_mels, frames) to logits (clips, classes).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .networks import Logits, standardize


class PiczakCNN(nn.Module):
    """Piczak's CNN: filters nearly as high as the spectrogram, over it and its deltas, and two large dense layers.

    As published: log-mel and deltas as two channels of 60 bands x 101 frames; 80 filters of 57x6, max pooling over 4x3;
    80 filters of 1x3, max pooling over 1x3; two dense layers of `hidden` units; dropout of 0.5 after the first
    convolution and after each dense layer. Not as published: 60 bands and 101 frames are averages of our 128 x 128,
    which are 2 s, not 2.3 s. Silent segments were left out; here, all are used.
    """

    # Source: K. J. Piczak, Environmental sound classification with convolutional neural networks, MLSP 2015; sizes and
    # dropout as in his code, https://github.com/karolpiczak/paper-2015-esc-convnet

    def __init__(self, n_classes: int, hidden: int = 5000) -> None:
        super().__init__()
        self.config = {"name": "PiczakCNN", "n_classes": n_classes, "hidden": hidden}
        self.pool = nn.AdaptiveAvgPool2d((60, 101))
        self.layers = nn.Sequential(
            nn.Conv2d(2, 80, (57, 6)), nn.ReLU(inplace=True), nn.MaxPool2d((4, 3), stride=(1, 3)), nn.Dropout(0.5),
            nn.Conv2d(80, 80, (1, 3)), nn.ReLU(inplace=True), nn.MaxPool2d((1, 3)), nn.Flatten(),
            nn.Linear(80 * 10, hidden), nn.ReLU(inplace=True), nn.Dropout(0.5),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(0.5),
            Logits(hidden, n_classes),
        )  # fmt: skip

    def channels(self, x: Tensor) -> Tensor:
        """Compute log-mel and deltas, (clips, 2, 60, 101), from dB (clips, 1, n_mels, frames)."""
        x = self.pool(standardize(x))
        return torch.cat([x, standardize(deltas(x))], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.channels(x))


def deltas(x: Tensor) -> Tensor:
    """Compute the slope in time of each point, per frame, by fitting a line to nine frames; same shape."""
    place = torch.arange(-4.0, 5.0, device=x.device, dtype=x.dtype)
    return F.conv2d(F.pad(x, (4, 4, 0, 0), mode="replicate"), (place / place.square().sum()).view(1, 1, 1, 9))


class SBCNN(nn.Module):
    """SB-CNN of Salamon and Bello: three convolutions of 5x5, the first two pooled, and a dense layer of 64.

    As published: 128 bands x 128 frames, no padding, max pooling over 4 frames x 2 bands, and dropout of 0.5 before
    both dense layers. Not as published: its 128 frames were 3 s, ours are 2 s.
    """

    # Source: J. Salamon, J. P. Bello, Deep convolutional neural networks and data augmentation for environmental sound
    # classification, IEEE Signal Processing Letters 24(3), 2017, https://arxiv.org/abs/1608.04363

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.config = {"name": "SBCNN", "n_classes": n_classes}
        self.layers = nn.Sequential(
            nn.Conv2d(1, 24, 5), nn.MaxPool2d((2, 4)), nn.ReLU(inplace=True),
            nn.Conv2d(24, 48, 5), nn.MaxPool2d((2, 4)), nn.ReLU(inplace=True),
            nn.Conv2d(48, 48, 5), nn.ReLU(inplace=True), nn.Flatten(),
            nn.Dropout(0.5), nn.Linear(48 * 25 * 2, 64), nn.ReLU(inplace=True),
            nn.Dropout(0.5), Logits(64, n_classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(standardize(x))


class ImageNetwork(nn.Module):
    """Image network applied to spectrograms, as in Hershey et al.: torchvision's, with one input channel.

    `network`, a name in `LAYERS`, is changed as they did: AlexNet begins with a smaller stride and has batch
    normalization; Inception V3 lacks its first four layers and its auxiliary output; ResNet-50 begins with stride 1;
    the dense layers of AlexNet and VGG19 take the last feature map as small as it is at full size. Not as published:
    their input was 96 frames x 64 bands, so AlexNet's stride was 2 in time and 1 along mel, and is 2 and 2 here; they
    used no dropout, having 70 million clips; and torchvision's AlexNet has fewer channels than the original.

    The spectrogram is averaged over squares of `downsample` first. `pretrained`: layers that are as ImageNet's start
    from its weights, which torchvision downloads once; the first convolution's are summed over its channels.
    """

    # Source: S. Hershey et al., CNN architectures for large-scale audio classification, ICASSP 2017,
    # https://arxiv.org/abs/1609.09430

    def __init__(self, n_classes: int, network: str, downsample: int = 1, pretrained: bool = False) -> None:
        import torchvision  # takes seconds, so imported only here

        super().__init__()
        self.config = {"name": "ImageNetwork", "n_classes": n_classes, "network": network, "downsample": downsample}
        self.pretrained = pretrained
        self.downsample = nn.AvgPool2d(downsample)
        # torchvision loads its weights only into a network with the auxiliary output, which is removed below.
        options = {"aux_logits": pretrained, "init_weights": not pretrained} if network == "inception_v3" else {}
        model = torchvision.models.get_model(network, weights="DEFAULT" if pretrained else None, **options)
        first, last = LAYERS[network]
        model.set_submodule(first, _one_channel(model.get_submodule(first)))
        model.set_submodule(last, Logits(model.get_submodule(last).in_features, n_classes))
        if network == "alexnet":
            model.features[0].stride = (2, 2)
            model.features = nn.Sequential(*(part for layer in model.features for part in _normalized(layer)))
            _fit_dense(model, "classifier.1", side=6 // downsample)
        elif network == "vgg19_bn":
            _fit_dense(model, "classifier.0", side=4 // downsample)
        elif network == "inception_v3":
            model.transform_input, model.aux_logits, model.AuxLogits = False, False, None
            for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"):
                model.set_submodule(name, nn.Identity())
        else:
            model.conv1.stride = (1, 1)
        self.network = model

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.downsample(standardize(x)))


LAYERS = {  # of torchvision's networks: the first convolution kept, and the output layer
    "alexnet": ("features.0", "classifier.6"),
    "vgg19_bn": ("features.0", "classifier.6"),
    "inception_v3": ("Conv2d_3b_1x1.conv", "fc"),
    "resnet50": ("conv1", "fc"),
}


def _one_channel(layer: nn.Conv2d) -> nn.Conv2d:
    """Convert a convolution to grayscale input, with its weights summed over the channels."""
    size, bias = layer.kernel_size, layer.bias is not None
    gray = nn.Conv2d(1, layer.out_channels, size, layer.stride, layer.padding, bias=bias)
    gray.load_state_dict(layer.state_dict() | {"weight": layer.weight.detach().sum(dim=1, keepdim=True)})
    return gray


def _normalized(layer: nn.Module) -> list[nn.Module]:
    """Return a layer of AlexNet, followed by batch normalization if it is a convolution."""
    return [layer, nn.BatchNorm2d(layer.out_channels)] if isinstance(layer, nn.Conv2d) else [layer]


def _fit_dense(model: nn.Module, name: str, side: int) -> None:
    """Make the first dense layer take a feature map of `side` x `side`."""
    (before, _), dense = model.avgpool.output_size, model.get_submodule(name)
    model.avgpool = nn.AdaptiveAvgPool2d(side)
    if side != before:
        model.set_submodule(name, nn.Linear(dense.in_features * side**2 // before**2, dense.out_features))
