"""What a network makes of a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raygrow.architecture import forward_flops
from raygrow.nn import Network
from raygrow.nn.losses import AbstractLoss
from raygrow.training.examples import Examples

EVALUATE_BATCH = 4096


@torch.no_grad()
def outputs_of(network: Network, x: Tensor) -> Tensor:
    """Logits or standardised predictions, [n, outputs], in eval mode."""
    network.eval()
    return torch.cat([network(x[i : i + EVALUATE_BATCH]) for i in range(0, len(x), EVALUATE_BATCH)])


@dataclass(frozen=True)
class Score:
    """What a network makes of a split.

    Attributes:
        losses: of every example, float64 [n].
        metric: accuracy, or R2 as the uniform average over targets.
        flops: spent on it.
    """

    losses: NDArray[np.float64]
    metric: float
    flops: int

    @property
    def loss(self) -> float:
        """Mean over the examples."""
        return float(self.losses.mean())


@torch.no_grad()
def score(network: Network, data: Examples, loss: AbstractLoss) -> Score:
    """Evaluate a network on a split."""
    output = outputs_of(network, data.x)
    losses = loss.per_example(output, data.y).double().cpu().numpy()
    return Score(losses, metric_of(output, data.y, loss), len(data) * forward_flops(network.arch))


def metric_of(output: Tensor, y: Tensor, loss: AbstractLoss) -> float:
    """Accuracy, or R2 as the uniform average over targets, of outputs [n, outputs]."""
    if loss.task == "classification":
        return float((output.argmax(-1) == y).double().mean())
    y = y.double()
    residual = (output.double() - y).square().sum(0)
    spread = (y - y.mean(0)).square().sum(0)
    # A target that does not vary in this split: 1 when predicted exactly, else 0 (scikit-learn's convention).
    return float(torch.where(spread > 0, 1 - residual / spread, (residual == 0).double()).mean())
