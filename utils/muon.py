"""Muon, the optimizer of the filters of `quick` and `best`."""

from collections.abc import Iterable

import torch
from torch import Tensor

LR_SCALE = 10.0  # ratio of its learning rate to AdamW's for the other weights
MOMENTUM = 0.95
WEIGHT_DECAY = 0.1  # each step shrinks the weights by this share, times LR_SCALE and the learning rate
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the odd polynomial that moves singular values toward 1
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Nesterov momentum with an orthogonalized step: equally long in all singular directions.

    For convolution weights, as matrices (outputs, inputs x height x width). `lr` is that of the AdamW that trains all
    other weights; the spectral norm of a step here is about `LR_SCALE` x `lr`. torch.optim.Muon takes matrices only; it
    and timm.optim.Muon iterate in bfloat16, slow on a CPU without it (timm's step: 3.5 s, this one: 0.075 s).
    """

    # Source: K. Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024,
    # https://kellerjordan.github.io/posts/muon/: the coefficients, iterations and momentum. J. Liu et al., Muon is
    # scalable for LLM training, 2025, https://arxiv.org/abs/2502.16982: weight decay.

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        """Take one step for the parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state, gradient = self.state[parameter], parameter.grad
                if gradient is None:
                    continue
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(gradient, 1 - MOMENTUM)
                parameter.mul_(1 - LR_SCALE * group["lr"] * WEIGHT_DECAY)
                update = orthogonal(gradient.lerp(state["momentum"], MOMENTUM).flatten(1))
                parameter.sub_(update.view_as(parameter), alpha=LR_SCALE * group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """Approximate the nearest matrix, (rows, columns), with orthonormal rows, or columns if there are more rows.

    Its singular values are 0.68 to 1.2, less where they were under 0.0015 of the matrix's norm. Uses Newton-Schulz
    iteration on the Gram matrix, which is the smaller one and needs float32: with TF32 it drifts.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonal(matrix.T).T
    matrix = matrix / (matrix.norm() + 1e-7)
    gram, polynomials = matrix @ matrix.T, []
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        if polynomials:
            gram = polynomials[-1] @ gram @ polynomials[-1]
        polynomials.append(torch.addmm(gram, gram, gram, beta=b, alpha=c))
        polynomials[-1].diagonal().add_(a)
    return torch.linalg.multi_dot([*polynomials, matrix])  # polynomials of one matrix commute
