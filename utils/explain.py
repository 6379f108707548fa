"""Layer-wise relevance propagation (LRP): which points of a spectrogram led a network to its output.

From the output back to the input, each layer passes its relevance on to the layer before it, in proportion to that
layer's contributions. Nothing is added or lost: the relevances of all points add up to the logit, less its bias.
"""

# Source: LRP of spectrograms is the paper's [8], S. Becker et al., Interpreting and explaining deep neural networks for
# classification of audio signals, https://arxiv.org/abs/1807.03418; the rules are those of zennit's EpsilonPlusFlat,
# https://zennit.readthedocs.io: epsilon for dense layers, z+ for convolutions, and flat for the first of these.

from collections.abc import Sequence
from contextlib import ExitStack

import librosa
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import mel
from .config import MelConfig
from .inference import activate
from .networks import Add, Logits, Residual
from .run_folder import Run

BATCH = 16  # spectrograms at once, as the outputs of all layers are kept
TOLERANCE = 0.05  # relevances with a greater `conservation_error` took a path around the layers
EPSILON = 1e-6  # keeps a sum that relevance is divided by from being 0
LARGEST_FLAT = 11  # largest side, in points, of a first filter with the flat rule
SHARES = (0.02, 0.05, 0.1, 0.2)  # of the points, deleted by `deletion`
COVERED = (
    nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout,
    nn.Flatten, nn.Identity, Add,
)  # fmt: skip


def uncovered(network: nn.Module) -> str:
    """Return the first layer not covered by the rules (such as a block with its own functions), or ""."""
    for name, layer in network.named_modules():
        known = (nn.Sequential, Residual) if list(layer.children()) else COVERED
        if name not in ("", "network") and not isinstance(layer, known):
            return f"{name} ({type(layer).__name__})"
    return "" if any(isinstance(layer, Logits) for layer in network.modules()) else "the output (which is no Logits)"


def explainable(runs: Sequence[Run]) -> list[Run]:
    """Return the `runs` whose network the rules cover, in the same order. Raises ValueError if there are none."""
    found = []
    for run in runs:
        with torch.device("meta"):  # takes no memory
            if run.has_weights and not uncovered(run.network()):
                found.append(run)
    if not found:
        raise ValueError("No run has a network that relevance propagation covers: run 03_cnn.")
    return found


def conservation_error(points: Tensor, sums: Tensor) -> Tensor:
    """Return how far the relevances of each spectrogram miss their sum, as a share of it, or of 1 if it is smaller.

    `points` (clips, n_mels, frames) and `sums` (clips,) as given by `relevance`; the result has shape (clips,).
    """
    return (points.sum(dim=(1, 2)) - sums).abs() / sums.abs().clamp(min=1)


def relevance(networks: Sequence[nn.Module], x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the relevance of each point for one label per spectrogram, (clips, n_mels, frames), and its sum, (clips,).

    The sum is the label's logit minus the bias of the output layer, which is the same for every clip. `networks`: as
    given by `Run.models`; for several folds, the relevance is that of their mean logit. `x`: dB (clips, 1, n_mels,
    frames); `labels`: class indices (clips,). Propagation stops at the normalized input of the first convolution. The
    relevance of an averaged square is spread evenly over it; that of the deltas is added to that of the log-mel. Raises
    ValueError, naming the layer, if the rules do not cover a network, or if relevance is lost, and ImportError without
    zennit.
    """
    for network in networks:
        if layer := uncovered(network):
            name = network.config.get("network", network.config["name"])
            raise ValueError(f"Relevance propagation has no rule for {name}'s layer {layer}: choose another run.")
    labels, batches = labels.to(x.device), []
    for x_batch, label_batch in zip(x.split(BATCH), labels.split(BATCH)):
        each = [_propagate(network.to(x.device).eval(), x_batch, label_batch) for network in networks]
        batches.append([torch.stack(part).mean(dim=0) for part in zip(*each)])
    points, sums = map(torch.cat, zip(*batches))
    if conservation_error(points, sums).max() > TOLERANCE:  # a path that `uncovered` cannot see, in a forward function
        raise ValueError("The relevances do not add up to the logit: the network has a path around its layers.")
    return points, sums


@torch.enable_grad()
def gradient_times_input(networks: Sequence[nn.Module], x: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the label's mean logit at each point, times its level above the clip's quietest point.

    To first order, `deletion` of the point takes as much from the logit. Shapes are as for `relevance`.
    """
    networks, gradients = [network.to(x.device).eval() for network in networks], []
    for x_batch, label_batch in zip(x.split(BATCH), labels.to(x.device).split(BATCH)):
        x_batch = x_batch.detach().requires_grad_()
        logits = torch.stack([network(x_batch) for network in networks]).mean(dim=0)
        gradients += torch.autograd.grad(logits.gather(1, label_batch[:, None]).sum(), x_batch)
    return (torch.cat(gradients) * (x - x.amin(dim=(1, 2, 3), keepdim=True)))[:, 0]


@torch.enable_grad()
def _propagate(network: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the relevance of each point, (clips, n_mels, frames), and its sum, (clips,)."""
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    bias = next(layer for layer in network.modules() if isinstance(layer, Logits)).bias
    seen = []

    def begin(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        seen.append(inputs[0].detach().requires_grad_())
        return seen[0]

    with ExitStack() as hooks:
        hooks.enter_context(first.register_forward_pre_hook(begin))  # before the rules' hooks, which see the new input
        hooks.enter_context(_rules(first).context(network))
        for layer in network.modules():
            if isinstance(layer, Add):
                hooks.enter_context(layer.register_forward_hook(_in_proportion))
        total = (network(x).gather(1, labels[:, None]) - bias[labels][:, None])[:, 0]
        (points,) = torch.autograd.grad(total, seen[0], total.detach())
    return _spread(points.sum(dim=1, keepdim=True), x), total.detach()


def _rules(first: nn.Conv2d):
    """Return zennit's composite for a network with this first convolution."""
    try:
        from zennit.canonizers import SequentialMergeBatchNorm
        from zennit.composites import EpsilonPlus, EpsilonPlusFlat
    except ImportError as error:
        raise ImportError("Relevance propagation needs the package zennit: pip install zennit") from error
    # Flat spreads relevance evenly over a filter, so it is not used for one half as high as the spectrogram.
    composite = EpsilonPlus if max(first.kernel_size) > LARGEST_FLAT else EpsilonPlusFlat
    # Without biases, layers pass on all of their relevance.
    return composite(zero_params="bias", canonizers=[SequentialMergeBatchNorm()])


def _in_proportion(_: Add, inputs: tuple[Tensor, Tensor], output: Tensor) -> Tensor:
    """Return `output` such that its relevance is passed back to `inputs` in proportion to what raised it (z+)."""
    raised = [part.detach().clamp(min=0) for part in inputs]
    whole = sum(raised) + EPSILON
    parts = sum(part * (share / whole) for part, share in zip(inputs, raised))
    return parts + (output - parts).detach()


def _spread(points: Tensor, x: Tensor) -> Tensor:
    """Spread `points` of averages over parts of `x`, (clips, 1, ...), evenly over these parts: as large as `x`."""
    if points.shape == x.shape:
        return points[:, 0]
    parts = torch.zeros_like(x).requires_grad_()
    return torch.autograd.grad(F.adaptive_avg_pool2d(parts, points.shape[-2:]), parts, points)[0][:, 0]


@torch.no_grad()
def deletion(
    networks: Sequence[nn.Module], x: Tensor, labels: Tensor, orders: dict[str, Tensor], activation: str, size: int
) -> pd.DataFrame:
    """Pixel flipping: the mean score of the labels after deleting the points that each ranking puts first.

    Returns a row per share deleted and a column per ranking. `orders`: rankings by name, (clips, n_mels, frames),
    highest first. Points are deleted in squares of `size` by their mean, and take the value of the clip's quietest
    point. The loudest stays: without it, peak normalization would make all others louder. `networks`, `x` and `labels`
    are as for `relevance`.
    """
    labels = labels.to(x.device).repeat(len(networks))[:, None]
    networks = [network.to(x.device).eval() for network in networks]

    def score(x: Tensor) -> float:
        scores = [activate(network(some), activation) for network in networks for some in x.split(BATCH)]
        return torch.cat(scores).gather(1, labels).mean().item()

    quietest, loudest = x.amin(dim=(1, 2, 3), keepdim=True), x.amax(dim=(1, 2, 3), keepdim=True)
    rows = {0.0: dict.fromkeys(orders, score(x))}
    for share in SHARES:
        masks = {name: _highest(order, share, size) & (x < loudest) for name, order in orders.items()}
        rows[share] = {name: score(torch.where(mask, quietest, x)) for name, mask in masks.items()}
    return pd.DataFrame(rows).T.rename_axis("share deleted")


def _highest(order: Tensor, share: float, size: int) -> Tensor:
    """Mark the points in the highest squares of each clip, a `share` of all squares; (clips, 1, ...)."""
    squares = F.avg_pool2d(order[:, None], size)
    index = squares.flatten(1).topk(round(share * squares[0].numel()), dim=1).indices
    chosen = torch.zeros_like(squares.flatten(1)).scatter_(1, index, 1.0).view_as(squares)
    chosen = F.interpolate(chosen, scale_factor=size)
    height, width = order.shape[1] - chosen.shape[2], order.shape[2] - chosen.shape[3]  # points in no square stay
    return F.pad(chosen, (0, width, 0, height)) > 0


def sonify(samples: np.ndarray, points: np.ndarray, settings: MelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Split a sound into what supports a label and the rest: mono samples that add up to `samples`.

    `samples` are those of the crop that `points`, relevances (n_mels, frames), belong to, or fewer. The most relevant
    tenth of the points keeps its level, the others are scaled by their relevance, and those that contradict it are
    removed. All frequencies of a band are scaled alike and keep the phase of the sound.
    """
    spectrum = librosa.stft(samples, n_fft=settings.n_fft, hop_length=settings.hop_length, pad_mode="constant")
    tiny = np.finfo(np.float32).tiny
    stays = (points / max(np.quantile(points, 0.9), tiny)).clip(0, 1)[:, : spectrum.shape[1]]
    filters = mel.mel_filters(settings)
    mask = filters.T @ stays / np.maximum(filters.sum(axis=0), tiny)[:, None]
    kept = librosa.istft(mask * spectrum, n_fft=settings.n_fft, hop_length=settings.hop_length, length=len(samples))
    return kept, samples - kept


def relevance_over_frequency(points: Tensor, labels: Tensor, classes: list[str]) -> pd.DataFrame:
    """Return where along frequency each class's relevance lies: a row per class in `labels`, a column per mel band.

    Values are shares of all relevance in a clip, for the label minus against it, averaged over the class's clips.
    """
    share = points.sum(dim=2) / points.abs().sum(dim=(1, 2))[:, None].clamp(min=torch.finfo(points.dtype).tiny)
    table = pd.DataFrame(share.cpu().numpy()).groupby(labels.cpu().numpy()).mean()
    return table.set_axis([classes[i] for i in table.index])
