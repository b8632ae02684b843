"""The two losses of raygrow, per example, and the curvature samples that growth needs of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

FEW = 16
"""Classes up to which the transposed reduction is the faster one."""


class AbstractLoss(ABC):
    """A loss of one task."""

    task: ClassVar[str]

    @abstractmethod
    def per_example(self, output: Tensor, y: Tensor) -> Tensor:
        """[..., n, outputs] and the n targets to [..., n]."""

    @abstractmethod
    def mean(self, output: Tensor, y: Tensor) -> Tensor:
        """The mean over a batch, [n, outputs] to a scalar: what training minimises."""

    @abstractmethod
    def descent(self, output: Tensor, y: Tensor) -> Tensor:
        """The functional gradient -dloss/doutput of every example, [n, outputs] (growth_math 0)."""

    @abstractmethod
    def columns(self, y: Tensor, outputs: int) -> Tensor:
        """The n targets as a matrix that outputs are compared with, [outputs, n], contiguous."""

    @abstractmethod
    def gradient(self, output: Tensor, wanted: Tensor, out: Tensor) -> None:
        """Gradient of the mean over a batch with respect to the outputs of many networks.

        Args:
            output: [networks, outputs, batch].
            wanted: ``columns`` of the batch, [outputs, batch].
            out: written to, like ``output``.
        """

    @abstractmethod
    def curvature_sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """A random vector r per example with ``E[r r^T]`` the Hessian of the loss in the output, [n, outputs].

        Backpropagated, it samples the generalised Gauss-Newton matrix at every node in one pass (Martens 2020, "New
        insights and perspectives on the natural gradient method", sections 8-9).
        """


@final
class CrossEntropy(AbstractLoss):
    """Cross-entropy of logits, nats per example."""

    task = "classification"

    def per_example(self, output: Tensor, y: Tensor) -> Tensor:
        labels = y.expand(output.shape[:-1])
        if output.shape[-1] > FEW:
            return output.logsumexp(-1) - output.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        # Over rows: few classes make reductions along the last dimension several times slower.
        chances = torch.log_softmax(output.transpose(-1, -2), -2)
        return chances.gather(-2, labels.unsqueeze(-2)).squeeze(-2).neg_()

    def mean(self, output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output, y)

    def descent(self, output: Tensor, y: Tensor) -> Tensor:
        # Over rows: few classes make a softmax along the last dimension several times slower.
        return (self.columns(y, output.shape[-1]) - torch.softmax(output.T, 0)).T

    def columns(self, y: Tensor, outputs: int) -> Tensor:
        return torch.eye(outputs, device=y.device).index_select(1, y)

    def gradient(self, output: Tensor, wanted: Tensor, out: Tensor) -> None:
        torch.softmax(output, 1, out=out)
        out.sub_(wanted).mul_(1.0 / output.shape[-1])

    def curvature_sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        probability = output.softmax(-1)
        # Inverse transform sampling: the generator lives on the CPU whatever the device of the network.
        draw = torch.rand(len(output), 1, generator=generator, dtype=torch.float64).to(output)
        label = (probability.cumsum(-1) < draw).sum(-1).clamp(max=output.shape[-1] - 1)
        return probability - F.one_hot(label, output.shape[-1]).to(output)


@final
class MeanSquaredError(AbstractLoss):
    """Mean over targets of the squared error, in standardised units."""

    task = "regression"

    def per_example(self, output: Tensor, y: Tensor) -> Tensor:
        return (output - y).square().mean(-1)

    def mean(self, output: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(output, y)

    def descent(self, output: Tensor, y: Tensor) -> Tensor:
        return (y - output) * (2.0 / output.shape[-1])

    def columns(self, y: Tensor, outputs: int) -> Tensor:
        return y.t().contiguous()

    def gradient(self, output: Tensor, wanted: Tensor, out: Tensor) -> None:
        torch.sub(output, wanted, out=out).mul_(2.0 / (output.shape[-1] * output.shape[-2]))

    def curvature_sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        sign = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
        return sign * math.sqrt(2.0 / output.shape[-1])


LOSSES: Mapping[str, AbstractLoss] = {loss.task: loss for loss in (CrossEntropy(), MeanSquaredError())}
