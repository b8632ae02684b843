"""Statistics of networks with positions: the examples go through in chunks, and rows are what stays of their maps.

A map of 512 examples is tens of MB, and fresh memory costs more than the arithmetic on it; a chunk stays in the cache. Forward
and backward pass of a chunk are one sweep, the positions that are looked at are picked from it, and only values that new
units may read are kept whole.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from raygrow.architecture import INPUT, Grid, Pooled
from raygrow.growth.backpropagation import backpropagate
from raygrow.growth.meter import Meter
from raygrow.growth.rows import ROWS_PER_COLUMN, Rows
from raygrow.growth.statistics import (
    CHUNK,
    LARGEST_SINGLE,
    AbstractMaps,
    Fold,
    Pass,
    RowsTable,
    Sample,
    Statistics,
    picked,
    rows_of,
    with_constant,
)
from raygrow.nn import Network, Trace
from raygrow.nn.losses import AbstractLoss

MAP_ROWS = 3072
"""Rows of a map, over all examples, that are enough for narrow layers; wide ones take 20 a column (growth_math 1.6)."""

LEAST_POSITIONS, MOST_POSITIONS = 4, 64
"""Of one example: neighbouring patches say nearly the same."""

WIDEST_KERNEL = 3
"""Taps a dimension that a new unit is expected to read, in counting columns."""


def passed(network: Network, sample: Sample, loss: AbstractLoss, meter: Meter) -> Pass:
    """A pass over the statistics examples, of the kind that the network needs."""
    return (Pass if network.arch.plain else MapPass)(network, sample, loss, meter)


class MapPass(Pass, AbstractMaps):
    """A pass of a network with positions or norms. Its updates are those of vectors; maps stay as they are.

    Attributes:
        trace: of the vectors alone.
    """

    def __init__(self, network: Network, sample: Sample, loss: AbstractLoss, meter: Meter) -> None:
        self.network, self.sample, self.loss = network, sample, loss
        self._meter, self._large = meter, False
        grid = network.arch.by_name[INPUT].grid
        # What the sample has solved of the input serves the nodes that read all of it as a vector.
        self._rows: RowsTable = {((INPUT,), (Pooled(grid),), ()) if grid else (INPUT,): sample.rows}

    @cached_property
    def trace(self) -> Trace:  # type: ignore[override]
        arch = self.network.arch
        vectors = [name for name in arch.order if not arch.by_name[name].grid]
        read = [(t, s) for t in vectors for s in arch.parents(t) if arch.by_name[s].value_grid]
        parts: dict[str, list[Tensor]] = {name: [] for name in vectors}
        before: dict[str, list[Tensor]] = {name: [] for name in vectors if name != INPUT}
        cells: dict[tuple[str, str], list[Tensor]] = {pair: [] for pair in read}
        for _, trace in self._chunks():
            for name in vectors:
                parts[name].append(trace.values[name])
                if name != INPUT:
                    before[name].append(trace.preactivations[name])
            for target, source in read:
                cells[target, source].append(rows_of(trace.values[source], arch.readings[source, target], None))
        values, preactivations = ({name: torch.cat(rows) for name, rows in table.items()} for table in (parts, before))
        for target in {target for target, _ in read}:
            parents = arch.parents(target)
            key = (parents, tuple(arch.readings[s, target] for s in parents), ())
            if key not in self._rows:
                columns = [torch.cat(cells[target, s]) if (target, s) in cells else values[s] for s in parents]
                self._rows[key] = Rows(with_constant(columns))
        return Trace(values, preactivations)

    def _chunks(self) -> Iterator[tuple[slice, Trace]]:
        """The forward pass, chunk by chunk."""
        n = len(self.sample)
        self._meter.products += n * self.network.flops
        grid = self.network.arch.by_name[INPUT].grid
        x = self.sample.shaped(grid) if grid else self.sample.x
        for start in range(0, n, CHUNK):
            cut = slice(start, min(start + CHUNK, n))
            with torch.no_grad():
                trace = self.network.trace(x[cut])
            self._check(float(trace.output.abs().amax()))
            yield cut, trace

    def _check(self, peak: float) -> None:
        if not peak < LARGEST_SINGLE:
            raise FloatingPointError("values or gradients of the statistics examples are not finite, or nearly so")

    def into(self, target: str) -> Rows:
        return Fold(self.network, self.trace.values, {}, {}, self._rows, self).into(target)

    def positions(self, grid: Grid) -> Tensor:
        n = len(self.sample)
        wanted = math.ceil(max(MAP_ROWS, ROWS_PER_COLUMN * self._columns(grid)) / n)
        return self.sample.positions(grid, max(LEAST_POSITIONS, min(MOST_POSITIONS, wanted)))

    def _columns(self, grid: Grid) -> int:
        """Columns of the widest rows that a unit with these positions would read."""
        near = [node.size for node in self.network.arch.nodes if grid in (node.grid, node.value_grid)]
        return max(near, default=1) * prod(WIDEST_KERNEL for _ in grid)

    def gradient(self, node: str) -> Tensor:
        found: list[Tensor] = []
        for cut, trace in self._chunks():
            at_output = self.loss.descent(trace.output, self.sample.y[cut])
            found.append(backpropagate(self.network, trace, at_output, [node], self._meter)[node])
        return torch.cat(found)

    def statistics(self, nodes: Collection[str], meter: Meter, curvature: torch.Generator | None = None) -> Statistics:
        arch, sample = self.network.arch, self.sample
        gradients: dict[str, list[Tensor]] = {name: [] for name in nodes}
        bends: dict[str, list[Tensor]] = {name: [] for name in nodes} if curvature is not None else {}
        grid = arch.by_name[INPUT].grid
        values: dict[str, Tensor] = {INPUT: sample.shaped(grid) if grid else sample.x}
        at = {name: self.positions(arch.by_name[name].grid) if arch.by_name[name].grid else None for name in nodes}

        # A unit that fed a node ahead of what it reads would close a cycle: maps behind all of these nodes stay in the cache.
        kept = [
            name
            for name in arch.order[1:]
            if not arch.by_name[name].value_grid or any(node not in arch.ancestors(name) | {name} for node in nodes)
        ]

        def pick(found: dict[str, Tensor], into: dict[str, list[Tensor]], cut: slice) -> None:
            for name, rows in found.items():
                places = at[name]
                into[name].append(picked(rows, None if places is None else places[cut]))

        for cut, trace in self._chunks():
            at_output = self.loss.descent(trace.output, sample.y[cut])
            pick(backpropagate(self.network, trace, at_output, nodes, meter), gradients, cut)
            if curvature is not None:
                drawn = self.loss.curvature_sample(trace.output, curvature)
                pick(backpropagate(self.network, trace, drawn, nodes, meter), bends, cut)
            for name in kept:
                value = trace.values[name]
                if name not in values:
                    values[name] = value.new_empty(len(sample), *value.shape[1:])
                values[name][cut] = value
        rows, bent = ({name: torch.cat(parts) for name, parts in table.items()} for table in (gradients, bends))
        for found in rows.values():
            self._check(float(found.abs().amax()))
        return Statistics(Fold(self.network, values, rows, bent, self._rows, self), sample.first)


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
    return passed(network, Sample(x, y), loss, meter).statistics(nodes, meter, generator)
