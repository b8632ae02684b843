"""Streamed second moments of every site of a network, from one forward and backward pass.

The statistics of growth_math 0 are blocks of two matrices: with b the values of all nodes and a constant 1 side by side,
and G = -dloss/da the functional gradients at all pre-activations side by side, they are E[b b^T] and E[b G^T]. So a batch
costs two products whatever the number of sites. E[G G^T] is left out: no initializer here uses an output metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raygrow.architecture import Architecture, backward_flops, forward_flops
from raygrow.growth.meter import Meter
from raygrow.nn import Network
from raygrow.nn.losses import AbstractLoss

COLLECT_BATCH = 1024


@dataclass(frozen=True)
class Layout:
    """Which columns of b and of G belong to which node."""

    values: Mapping[str, slice]
    gradients: Mapping[str, slice]
    constant: int

    @classmethod
    def of(cls, arch: Architecture) -> Layout:
        values: dict[str, slice] = {}
        gradients: dict[str, slice] = {}
        p = q = 0
        for node in arch.nodes:
            values[node.name] = slice(p, p := p + node.size)
        for node in arch.nodes[1:]:
            gradients[node.name] = slice(q, q := q + node.size)
        return cls(values, gradients, p)

    def inputs(self, sources: Sequence[str]) -> Tensor:
        """Columns of b that a unit with these sources reads: their values and the constant last."""
        spans = [torch.arange(self.values[s].start, self.values[s].stop) for s in sources]
        return torch.cat([*spans, torch.tensor([self.constant])])

    def outputs(self, targets: Sequence[str]) -> Tensor:
        """Columns of G that a unit with these targets feeds."""
        return torch.cat([torch.arange(self.gradients[t].start, self.gradients[t].stop) for t in targets])


class Moments:
    """Sums of products over examples, in float64, one batch at a time.

    Args:
        layout: of the network the rows come from.
        examples: how many there will be. With fewer examples than columns the square matrix is not kept: solves
            then go through the n x n dual of the rows.
    """

    def __init__(self, layout: Layout, examples: int) -> None:
        self.layout = layout
        self.count = 0
        self.dual = examples < layout.constant + 1
        self._second: Tensor | float = 0.0
        self._cross: Tensor | float = 0.0

    def add(self, b: Tensor, g: Tensor, meter: Meter) -> None:
        """Add a batch: b [n, P + 1] with the constant last, g [n, Q]."""
        self.count += len(b)
        if not self.dual:
            self._second = self._second + meter.mm(b.T, b).double()
        self._cross = self._cross + meter.mm(b.T, g).double()

    def __add__(self, other: Moments) -> Moments:
        total = Moments(self.layout, 0)
        # With an odd number of examples one half may have rows enough and the other not.
        total.dual = self.dual or other.dual
        total.count = self.count + other.count
        total._second = 0.0 if total.dual else self._second + other._second
        total._cross = self._cross + other._cross
        return total

    @property
    def second(self) -> Tensor:
        """E[b b^T], [P + 1, P + 1]; absent in the dual regime."""
        return self._mean(self._second)

    @property
    def cross(self) -> Tensor:
        """E[b G^T], [P + 1, Q]."""
        return self._mean(self._cross)

    def _mean(self, total: Tensor | float) -> Tensor:
        if not isinstance(total, Tensor):
            raise ValueError("no examples were added, or the matrix is not kept because examples < columns")
        return total / self.count


@dataclass(frozen=True)
class Fold:
    """Statistics examples as moments and as rows.

    The rows stay because signs, refits on the true activation and cross-fitted predictions are not functions of the
    moments; a few thousand rows of a small network are a few MB.

    Attributes:
        b: values of all nodes and a constant, [n, P + 1], float64.
        g: functional gradients -dloss/da, per example, [n, Q], float64.
        curvature: backpropagated curvature samples (``AbstractLoss.curvature_sample``), [n, Q], float64.
    """

    arch: Architecture
    moments: Moments
    b: Tensor
    g: Tensor
    curvature: Tensor

    def __len__(self) -> int:
        return len(self.b)

    @property
    def layout(self) -> Layout:
        return self.moments.layout

    @property
    def values(self) -> dict[str, Tensor]:
        """Rows of b by node, [n, size]."""
        return {name: self.b[:, span] for name, span in self.layout.values.items()}

    def inputs(self, sources: Sequence[str]) -> Tensor:
        """Rows that a unit with these sources reads, the constant last, [n, p2]."""
        return self.b[:, self.layout.inputs(sources)]

    def outputs(self, rows: Tensor, target: str) -> Tensor:
        """Columns of one target among rows shaped like ``g``."""
        return rows[:, self.layout.gradients[target]]


@dataclass(frozen=True)
class Statistics:
    """Two halves of the statistics examples, for cross-fitting, and the whole, for building."""

    folds: tuple[Fold, Fold]
    whole: Fold


def rows_of(
    network: Network, x: Tensor, y: Tensor, loss: AbstractLoss, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """b, G and curvature rows of a batch, in the network's precision. The parameters' ``.grad`` is not touched."""
    trace = network.trace(x)
    names = [node.name for node in network.arch.nodes[1:]]
    at = [trace.preactivations[name] for name in names]
    output = trace.output
    g = torch.autograd.grad(loss.per_example(output, y).sum(), at, retain_graph=True)
    sample = loss.curvature_sample(output.detach(), generator)
    # As the gradient of a scalar: handing autograd an output gradient makes it import a symbolic algebra system.
    c = torch.autograd.grad((output * sample).sum(), at)
    values = [trace.values[node.name].detach() for node in network.arch.nodes]
    return torch.cat([*values, torch.ones_like(x[:, :1])], 1), -torch.cat(g, 1), torch.cat(c, 1)


def fold_of(
    network: Network,
    x: Tensor,
    y: Tensor,
    loss: AbstractLoss,
    generator: torch.Generator,
    meter: Meter,
    batch: int = COLLECT_BATCH,
) -> Fold:
    """Moments and rows of all sites in one pass over these examples, in eval mode.

    Raises:
        FloatingPointError: the network has diverged on them.
    """
    was_training = network.training
    network.eval()
    moments = Moments(Layout.of(network.arch), len(x))
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(x), batch):
        b, g, c = rows_of(network, x[start : start + batch], y[start : start + batch], loss, generator)
        b, g, c = b.double(), g.double(), c.double()
        if not bool(torch.isfinite(b).all() and torch.isfinite(g).all()):
            raise FloatingPointError("values or gradients of the statistics examples are not finite")
        # In float64 from here on: squares of large values would overflow float32.
        moments.add(b, g, meter)
        rows.append((b, g, c))
    network.train(was_training)
    arch = network.arch
    # One forward and two backward passes, those only to the pre-activations.
    meter.products += len(x) * (forward_flops(arch) + 2 * backward_flops(arch, weights=False))
    b, g, c = (torch.cat(parts) for parts in zip(*rows, strict=True))
    return Fold(arch, moments, b, g, c)


def collect(
    network: Network,
    x: Tensor,
    y: Tensor,
    loss: AbstractLoss,
    generator: torch.Generator,
    meter: Meter,
    batch: int = COLLECT_BATCH,
) -> Statistics:
    """Statistics of all sites, in two halves (even and odd examples) and as a whole.

    Args:
        x: [n, inputs], n >= 2.
        y: labels [n] or targets [n, t].
        generator: for the curvature samples.
    """
    first, second = (fold_of(network, x[half::2], y[half::2], loss, generator, meter, batch) for half in range(2))
    whole = Fold(
        network.arch,
        first.moments + second.moments,
        torch.cat([first.b, second.b]),
        torch.cat([first.g, second.g]),
        torch.cat([first.curvature, second.curvature]),
    )
    return Statistics((first, second), whole)
