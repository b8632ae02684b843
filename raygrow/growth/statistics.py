"""What the statistics examples say of a network: rows read and gradients fed, of every site, each computed when asked for.

The statistics of growth_math 0 are products of two things: the rows that a unit reads (values of its parents and a constant)
and the functional gradients G = -dloss/da at the pre-activations that it feeds. An initializer that needs a product asks for
it, and what nobody asks for is never multiplied.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from raygrow.architecture import (
    INPUT,
    AbstractReading,
    Architecture,
    Grid,
    Linear,
    digest_seed,
)
from raygrow.growth.backpropagation import backpropagate
from raygrow.growth.meter import Meter
from raygrow.growth.rows import UPDATE_RIDGE, WHITENING_RIDGE, Rows, side_by_side
from raygrow.nn import Network
from raygrow.nn.losses import AbstractLoss
from raygrow.nn.maps import map_of

RowsTable = dict[Hashable, Rows]
"""By the nodes that are read, and for maps the readings and the positions too."""

CHUNK = 64
"""Examples of maps that go through together: a chunk stays in the cache."""

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
        self.rows = Rows(with_constant([torch.cat([x[0::2], x[1::2]])]))
        # A view, so that passes and regressions read the same memory.
        self.x = self.rows.matrix[:, :-1]
        self.y = torch.cat([y[0::2], y[1::2]])
        self.first = (len(x) + 1) // 2
        self.peak = float(self.x.abs().amax())
        self.rows.split(self.first)
        self._shaped: Tensor | None = None
        self._positions: dict[tuple[Grid, int], Tensor] = {}

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

    def positions(self, grid: Grid, most: int) -> Tensor:
        """Flat positions of a grid, so many of each example, others in every one, the same in every round; [n, m]."""
        if (grid, most) not in self._positions:
            n, there = len(self), prod(grid)
            # Seeded by what it is for: the same for every member with this sample, whoever asks first.
            generator = torch.Generator().manual_seed(digest_seed("positions", *grid, n))
            drawn = torch.rand(n, there, generator=generator).argsort(1)[:, :most].sort(1).values
            self._positions[grid, most] = drawn.to(self.x.device)
        return self._positions[grid, most]

    def shaped(self, grid: Grid) -> Tensor:
        """The examples as maps, [n, channels, *grid]."""
        if self._shaped is None:
            self._shaped = self.x.reshape(len(self), -1, *grid)
        return self._shaped

    def __len__(self) -> int:
        return self.x.shape[0]


class AbstractMaps(ABC):
    """What a fold of a network with positions asks for when it needs it."""

    @abstractmethod
    def positions(self, grid: Grid) -> Tensor:
        """Flat positions of a grid that are looked at, [n, m]."""

    @abstractmethod
    def gradient(self, node: str) -> Tensor:
        """G of a node at every position, [n, size, *grid]."""


class Fold:
    """Examples as rows: the whole sample, or one of its halves.

    The rows stay because signs, refits on the true activation and cross-fitted predictions are not functions of second
    moments; a few thousand rows of a small network are a few MB. A vector is one row an example; of a map some positions are
    looked at, and each is a row, examples before positions.

    Attributes:
        network: as it was when the examples went through it.
        values: of every vector, and of the maps that units may read which feed the nodes asked for, [n, size, *value grid].
        gradients: G of the nodes that were asked for, [rows, size].
        curvature: backpropagated curvature samples (``AbstractLoss.curvature_sample``), likewise; empty unless asked for.
        cluster: rows that come from one example and are not independent: 1, or positions where a map was written in rows.
    """

    def __init__(
        self,
        network: Network,
        values: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        curvature: Mapping[str, Tensor],
        rows: RowsTable,
        maps: AbstractMaps | None = None,
        whole: tuple[Fold, int, int] | None = None,
        cluster: int = 1,
    ) -> None:
        self.network, self.values, self.gradients, self.curvature = network, values, gradients, curvature
        self._rows, self._maps, self._whole = rows, maps, whole
        self.cluster = cluster

    def __len__(self) -> int:
        return next(iter(self.values.values())).shape[0]

    @property
    def arch(self) -> Architecture:
        return self.network.arch

    def reads(self, sources: Sequence[str]) -> Rows:
        """Rows that a unit with these sources reads, vectors all, the constant last, [n, p2]."""
        if self._whole is not None:
            whole, half, first = self._whole
            return whole.reads(sources).split(first)[half]
        key = tuple(sources)
        if key not in self._rows:
            read = [self.values[source] for source in sources] or [next(iter(self.values.values()))[:, :0]]
            self._rows[key] = Rows(with_constant(read))
        return self._rows[key]

    def positions(self, grid: Grid) -> Tensor | None:
        """Flat positions of a grid that are looked at, [n, m]; None where it has none."""
        if not grid:
            return None
        if self._whole is not None:
            whole, half, first = self._whole
            found = whole.positions(grid)
            assert found is not None
            return found[:first] if half == 0 else found[first:]
        assert self._maps is not None
        return self._maps.positions(grid)

    def patches(self, sources: Sequence[str], readings: Sequence[AbstractReading], grid: Grid) -> Rows:
        """Rows that a unit with these positions reads in this way, the constant last."""
        if all(isinstance(reading, Linear) for reading in readings):
            return self.reads(sources)
        if self._whole is not None:
            whole, half, first = self._whole
            rows = whole.patches(sources, readings, grid)
            return rows.split(first * (rows.n // len(whole)))[half]
        key = (tuple(sources), tuple(readings), grid)
        if key not in self._rows:
            at = self.positions(grid)
            values = [(self.values[source], reading) for source, reading in zip(sources, readings, strict=True)]
            self._rows[key] = Rows(with_constant([rows_of(value, reading, at) for value, reading in values]))
        return self._rows[key]

    def into(self, target: str) -> Rows:
        """Rows that a node reads already, the constant last."""
        arch = self.arch
        parents = arch.parents(target)
        return self.patches(parents, [arch.readings[p, target] for p in parents], arch.by_name[target].grid)

    def gradient_map(self, target: str) -> Tensor:
        """G of a node at every position, [n, size, *grid]; a pass of its own where it has any."""
        if not self.arch.by_name[target].grid:
            return self.gradients[target]
        if self._whole is not None:
            whole, half, first = self._whole
            return whole.gradient_map(target)[slice(0, first) if half == 0 else slice(first, None)]
        assert self._maps is not None
        return self._maps.gradient(target)

    def feeds(self, targets: Sequence[str]) -> Tensor:
        """Functional gradients at what a unit with these targets feeds, side by side, [rows, q]."""
        return side_by_side([self.gradients[target] for target in targets])

    def half(self, which: int, first: int) -> Fold:
        """The examples before ``first``, or those from there on, as views."""
        n = len(self)

        def cut(rows: Tensor) -> Tensor:
            at = first * (len(rows) // n)
            return rows[:at] if which == 0 else rows[at:]

        values, gradients, curvature = (
            {name: cut(rows) for name, rows in table.items()} for table in (self.values, self.gradients, self.curvature)
        )
        return Fold(self.network, values, gradients, curvature, {}, whole=(self, which, first))


class Statistics:
    """The statistics examples through one network.

    Attributes:
        whole: for building.
    """

    def __init__(self, whole: Fold, first: int) -> None:
        self.whole = whole
        self._first = first

    @cached_property
    def folds(self) -> tuple[Fold, Fold]:
        """Its halves, as views, for cross-fitting."""
        return self.whole.half(0, self._first), self.whole.half(1, self._first)


class Pass:
    """A forward pass of a network of dense layers on the statistics examples that follows the network's updates.

    Products are in the network's precision; in float64 where a value or a gradient is so large that float32 would overflow.

    Raises:
        FloatingPointError: the network has diverged on the examples; so do ``gradients`` and ``statistics``.
    """

    def __init__(self, network: Network, sample: Sample, loss: AbstractLoss, meter: Meter) -> None:
        self.network, self.sample, self.loss = network, sample, loss
        with torch.no_grad():
            self.trace = network.trace(sample.x)
        meter.products += len(sample) * network.flops
        self._large = False
        self._rows: RowsTable = {(INPUT,): sample.rows}
        self._check(sample.peak)
        self._watch(rows for name, rows in self.trace.values.items() if name != INPUT)

    def into(self, target: str) -> Rows:
        """Rows that a node reads, as the network is now."""
        values = {source: self._wide(self.trace.values[source]) for source in self.network.arch.parents(target)}
        return Fold(self.network, values, {}, {}, self._rows).into(target)

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
        self._rows = {key: rows for key, rows in self._rows.items() if not changed & set(sources_of(key))}
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
        return Statistics(Fold(self.network, values, gradients, bends, self._rows), self.sample.first)

    def _watch(self, tensors: Iterable[Tensor]) -> None:
        # Both ends, as rows.abs() would be a copy of everything.
        ends = [end for rows in tensors for end in torch.aminmax(rows)]
        self._check(float(torch.stack(ends).abs().amax()))

    def _check(self, peak: float) -> None:
        if not peak < math.inf:
            raise FloatingPointError("values or gradients of the statistics examples are not finite")
        if peak > LARGEST_SINGLE and not self._large:
            self._large = True
            self._rows = {}

    def _wide(self, rows: Tensor) -> Tensor:
        return rows.double() if self._large else rows


def with_constant(values: Sequence[Tensor]) -> Tensor:
    """Matrices of equally many rows side by side, and a column of ones."""
    return torch.cat([*values, values[0].new_ones(len(values[0]), 1)], 1)


def rows_of(values: Tensor, reading: AbstractReading, at: Tensor | None) -> Tensor:
    """What the weight of a reading acts on, [n x positions, units x taps].

    Args:
        values: [n, units, *grid].
        at: positions of the target, [n, m]; None where it has none.
    """
    return map_of(reading, tuple(values.shape[2:])).rows(values, at).flatten(0, 1)


def picked(values: Tensor, at: Tensor | None) -> Tensor:
    """A map [n, units, *grid] at positions [n, m], as rows [n x m, units]; a matrix [n, units] as it is."""
    if at is None:
        return values
    flat = values.flatten(2)
    return flat.gather(2, at.unsqueeze(1).expand(-1, flat.shape[1], -1)).transpose(1, 2).flatten(0, 1)


def sources_of(key: Hashable) -> tuple[str, ...]:
    """The nodes that rows of this key were taken from."""
    assert isinstance(key, tuple)
    return key[0] if isinstance(key[0], tuple) else key
