"""Muon, the optimiser of the filters of `quick` and `best`."""

from collections.abc import Iterable

import torch
from torch import Tensor

LR_SCALE = 10.0  # its learning rate over that of AdamW, beside which it works
MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the odd polynomial that moves singular values towards 1
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Nesterov's momentum, whose step is made orthogonal: it is as long in rare directions as in frequent ones.

    For weights of convolutions, as matrices (outputs, inputs x height x width). `lr` is that of the AdamW that trains
    all other weights; a step here has the spectral norm `LR_SCALE` x `lr`.
    """

    # Source: K. Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024,
    # https://kellerjordan.github.io/posts/muon/: the coefficients, iterations and momentum.

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step, by the gradients of the parameters."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state, gradient = self.state[parameter], parameter.grad
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(gradient, 1 - MOMENTUM)
                update = orthogonal(gradient.lerp(state["momentum"], MOMENTUM).flatten(1))
                parameter.sub_(update.view_as(parameter), alpha=LR_SCALE * group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix whose rows, or columns if there are more rows, are orthonormal; (rows, columns).

    Its singular values are 0.7 to 1.2, those that were under a thousandth of the matrix's norm less. By the iteration
    of Newton and Schulz, on the Gram matrix, which is the smaller one.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonal(matrix.T).T
    matrix = matrix / (matrix.norm() + 1e-7)
    gram, (a, b, c) = matrix @ matrix.T, NEWTON_SCHULZ
    identity = torch.eye(len(matrix), device=matrix.device)
    product = identity
    for _ in range(ITERATIONS):
        polynomial = torch.addmm(a * identity + b * gram, gram, gram, alpha=c)
        product, gram = polynomial @ product, polynomial @ gram @ polynomial
    return product @ matrix
