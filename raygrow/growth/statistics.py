"""What the statistics examples say of a network: rows read and gradients fed, of every site, each computed when asked for.

The statistics of growth_math 0 are products of two things: the rows that a unit reads (values of its parents and a constant)
and the functional gradients G = -dloss/da at the pre-activations that it feeds. An initializer that needs a product asks for
it, and what nobody asks for is never multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from raygrow.architecture import INPUT, Architecture, forward_flops
from raygrow.growth.backpropagation import backpropagate
from raygrow.growth.meter import Meter
from raygrow.growth.rows import UPDATE_RIDGE, WHITENING_RIDGE, Rows, side_by_side
from raygrow.nn import Network
from raygrow.nn.losses import AbstractLoss

LARGEST_SINGLE = 1e9
"""Beyond this size of a value or a gradient the statistics are in float64: sums of products would overflow float32."""


class Sample:
    """Statistics examples of one member, and what does not depend on its network: rows of the input.

    The first half of the rows are the even examples, the second the odd ones: predictions learn on one and are measured on
    the other.

    Args:
        x: [n, inputs], n >= 2.
        y: labels [n] or targets [n, t].
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.rows = Rows(_with_constant([torch.cat([x[0::2], x[1::2]])]))
        # A view, so that passes and regressions read the same memory.
        self.x = self.rows.matrix[:, :-1]
        self.y = torch.cat([y[0::2], y[1::2]])
        self.first = (len(x) + 1) // 2
        self.peak = float(self.x.abs().amax())
        self.rows.split(self.first)

    def prepare(self, *, whitens: bool) -> Meter:
        """Solve now what growth will ask of the input's rows, for regressions or for whitening, and return the bill.

        Otherwise each is solved when it is asked for first.
        """
        bill = Meter()
        if whitens:
            self.rows.factor(WHITENING_RIDGE, bill)
            self.rows.whitened(bill)
            for half in self.rows.split(self.first):
                half.factor(UPDATE_RIDGE, bill)
        else:
            self.rows.factor(UPDATE_RIDGE, bill)
        return bill

    def __len__(self) -> int:
        return len(self.x)


class Fold:
    """Examples as rows: the whole sample, or one of its halves.

    The rows stay because signs, refits on the true activation and cross-fitted predictions are not functions of second
    moments; a few thousand rows of a small network are a few MB.

    Attributes:
        arch: of the network.
        values: of every node, [n, size].
        gradients: G of the nodes that were asked for, [n, size].
        curvature: backpropagated curvature samples (``AbstractLoss.curvature_sample``), [n, size]; empty unless asked for.
    """

    def __init__(
        self,
        arch: Architecture,
        values: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        curvature: Mapping[str, Tensor],
        rows: dict[tuple[str, ...], Rows],
        whole: tuple[Fold, int, int] | None = None,
    ) -> None:
        self.arch, self.values, self.gradients, self.curvature = arch, values, gradients, curvature
        self._rows, self._whole = rows, whole

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def reads(self, sources: Sequence[str]) -> Rows:
        """Rows that a unit with these sources reads, the constant last, [n, p2]."""
        if self._whole is not None:
            whole, half, first = self._whole
            return whole.reads(sources).split(first)[half]
        key = tuple(sources)
        if key not in self._rows:
            self._rows[key] = Rows(_with_constant([self.values[source] for source in sources]))
        return self._rows[key]

    def feeds(self, targets: Sequence[str]) -> Tensor:
        """Functional gradients at what a unit with these targets feeds, side by side, [n, q]."""
        return side_by_side([self.gradients[target] for target in targets])

    def half(self, which: int, first: int) -> Fold:
        """The rows before ``first``, or those from there on, as views."""
        cut = slice(0, first) if which == 0 else slice(first, None)
        values, gradients, curvature = (
            {name: rows[cut] for name, rows in table.items()} for table in (self.values, self.gradients, self.curvature)
        )
        return Fold(self.arch, values, gradients, curvature, {}, (self, which, first))


class Statistics:
    """The statistics examples through one network.

    Attributes:
        whole: for building.
        folds: its halves, as views, for cross-fitting.
    """

    def __init__(self, whole: Fold, first: int) -> None:
        self.whole = whole
        self.folds = whole.half(0, first), whole.half(1, first)


class Pass:
    """A forward pass of a network on the statistics examples that follows the network's updates.

    Products are in the network's precision; in float64 where a value or a gradient is so large that float32 would overflow.

    Raises:
        FloatingPointError: the network has diverged on the examples; so do ``gradients`` and ``statistics``.
    """

    def __init__(self, network: Network, sample: Sample, loss: AbstractLoss, meter: Meter) -> None:
        self.network, self.sample, self.loss = network, sample, loss
        with torch.no_grad():
            self.trace = network.trace(sample.x)
        meter.products += len(sample) * forward_flops(network.arch)
        self._large = False
        self._rows: dict[tuple[str, ...], Rows] = {(INPUT,): sample.rows}
        self._check(sample.peak)
        self._watch(rows for name, rows in self.trace.values.items() if name != INPUT)

    def rows(self, sources: Sequence[str]) -> Rows:
        """What a unit with these sources reads, as the network is now."""
        key = tuple(sources)
        if key not in self._rows:
            self._rows[key] = Rows(_with_constant([self._wide(self.trace.values[source]) for source in sources]))
        return self._rows[key]

    def gradients(self, nodes: Collection[str], meter: Meter) -> dict[str, Tensor]:
        """G at the pre-activations of these nodes, each [n, size]."""
        at_output = self.loss.descent(self.trace.output, self.sample.y)
        found = backpropagate(self.network, self.trace, at_output, nodes, meter)
        self._watch(found.values())
        return {name: self._wide(rows) for name, rows in found.items()}

    def move(self, node: str, delta: Tensor, meter: Meter) -> None:
        """Follow a change of the weights into ``node`` that adds ``delta`` to its pre-activation."""
        deltas = {node: delta}
        meter.products += self.network.tail_flops(deltas) * len(self.sample)
        self.trace = self.network.moved(self.trace, deltas)
        arch = self.network.arch
        changed = {node, *(name for name in arch.order if node in arch.ancestors(name))}
        self._rows = {key: rows for key, rows in self._rows.items() if not changed & set(key)}
        self._watch(self.trace.values[name] for name in changed)

    def statistics(self, nodes: Collection[str], meter: Meter, curvature: torch.Generator | None = None) -> Statistics:
        """Everything that growth at sites which feed ``nodes`` may ask for.

        Args:
            curvature: draws the curvature samples that predictions need; None: there are none.
        """
        gradients = self.gradients(nodes, meter)
        bends: dict[str, Tensor] = {}
        if curvature is not None:
            drawn = self.loss.curvature_sample(self.trace.output, curvature)
            bends = backpropagate(self.network, self.trace, drawn, nodes, meter)
        values = {name: self._wide(rows) for name, rows in self.trace.values.items()}
        bends = {name: self._wide(rows) for name, rows in bends.items()}
        return Statistics(Fold(self.network.arch, values, gradients, bends, self._rows), self.sample.first)

    def _watch(self, tensors: Iterable[Tensor]) -> None:
        # Both ends, as rows.abs() would be a copy of everything.
        ends = [end for rows in tensors for end in (rows.amax(), rows.amin())]
        self._check(float(torch.stack(ends).abs().amax()))

    def _check(self, peak: float) -> None:
        if not peak < math.inf:
            raise FloatingPointError("values or gradients of the statistics examples are not finite")
        if peak > LARGEST_SINGLE and not self._large:
            self._large = True
            self._rows = {}

    def _wide(self, rows: Tensor) -> Tensor:
        return rows.double() if self._large else rows


def collect(
    network: Network,
    x: Tensor,
    y: Tensor,
    loss: AbstractLoss,
    generator: torch.Generator,
    meter: Meter,
) -> Statistics:
    """Statistics of all sites, with curvature samples, of examples that no other call shares.

    Args:
        x: [n, inputs], n >= 2.
        y: labels [n] or targets [n, t].
        generator: for the curvature samples.
    """
    nodes = [node.name for node in network.arch.nodes[1:]]
    return Pass(network, Sample(x, y), loss, meter).statistics(nodes, meter, generator)


def _with_constant(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([*values, values[0].new_ones(len(values[0]), 1)], 1)
