"""Training and evaluation on in-memory tensors: no loader, no worker, indices drawn once a call."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raygrow.architecture import forward_flops, training_flops
from raygrow.nn import Network, Optimizer, clone
from raygrow.nn.losses import LOSSES, AbstractLoss

GATHER = 8192
"""Examples gathered at once: one index operation serves many steps."""

EVALUATE_BATCH = 4096


@dataclass(frozen=True)
class Examples:
    """A split on the device of the network: x [n, inputs], y [n] labels or [n, t] targets."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def of(cls, x: NDArray[Any], y: NDArray[Any], device: torch.device) -> Examples:
        """Copies, so that arrays from a shared object store are never written to."""
        return cls(torch.tensor(x, device=device), torch.tensor(y, device=device))

    def take(self, index: Tensor) -> Examples:
        return Examples(self.x[index], self.y[index])


@dataclass(frozen=True)
class ExampleSets:
    """The four splits as tensors, and the task."""

    task: Literal["classification", "regression"]
    train: Examples
    search: Examples
    validation: Examples
    test: Examples

    @property
    def loss(self) -> AbstractLoss:
        return LOSSES[self.task]


def example_order(n: int, examples: int, seed: int) -> Tensor:
    """Indices of ``examples`` examples: whole permutations of the n rows one after the other, the last cut short."""
    generator = torch.Generator().manual_seed(seed)
    passes = [torch.randperm(n, generator=generator) for _ in range(math.ceil(examples / n))]
    return torch.cat(passes)[:examples] if passes else torch.empty(0, dtype=torch.long)


def batches(data: Examples, order: Tensor, batch_size: int) -> Iterator[Examples]:
    """Consecutive batches in this order, gathered in larger pieces."""
    piece = max(GATHER // batch_size, 1) * batch_size
    for start in range(0, len(order), piece):
        gathered = data.take(order[start : start + piece].to(data.x.device))
        for first in range(0, len(gathered), batch_size):
            yield Examples(gathered.x[first : first + batch_size], gathered.y[first : first + batch_size])


class WeightAverage:
    """A running average of a network's weights over its latest steps (Polyak and Juditsky 1992, with a window).

    At a constant rate the iterates rattle around what they have learned; their average does not, so two forks differ by
    their architectures and not by where the last batches left them. Every step weighs 2 %, so the window is about 50
    steps; the first 50 count alike.

    Attributes:
        network: holds the average; of its own, never trained.
    """

    LEAST = 0.02

    def __init__(self, network: Network) -> None:
        self.network = clone(network)
        self._average: list[Tensor] = list(self.network.parameters())
        self._source: list[Tensor] = list(network.parameters())
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        self._steps += 1
        torch._foreach_lerp_(self._average, self._source, max(self.LEAST, 1.0 / self._steps))


def fit(
    network: Network,
    optimizer: Optimizer,
    data: Examples,
    loss: AbstractLoss,
    order: Tensor,
    batch_size: int,
    anneal: bool = False,
    average: WeightAverage | None = None,
) -> int:
    """Train in place on the examples named by ``order``.

    Args:
        average: kept up to date after every step.
        anneal: lower the rate from the plan's to 0 by half a cosine.

    Returns:
        FLOPs spent.
    """
    network.train()
    steps = math.ceil(len(order) / batch_size)
    lr = optimizer.plan.lr
    for step, batch in enumerate(batches(data, order, batch_size)):
        rate = lr * 0.5 * (1.0 + math.cos(math.pi * step / steps)) if anneal else lr
        gradients = torch.autograd.grad(loss.mean(network(batch.x), batch.y), optimizer.params)
        optimizer.step(gradients, rate)
        if average is not None:
            average.update()
    return len(order) * training_flops(network.arch)


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
    if loss.task == "classification":
        metric = float((output.argmax(-1) == data.y).double().mean())
    else:
        y = data.y.double()
        residual = (output.double() - y).square().sum(0)
        spread = (y - y.mean(0)).square().sum(0)
        # A target that does not vary in this split: 1 when predicted exactly, else 0 (scikit-learn's convention).
        ratio = torch.where(spread > 0, 1 - residual / spread, (residual == 0).double())
        metric = float(ratio.mean())
    return Score(losses, metric, len(data) * forward_flops(network.arch))
