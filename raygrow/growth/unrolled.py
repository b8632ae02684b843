"""Sites on maps as sites between vectors: one row a position.

A unit of a convolution is a dense unit that reads patches. Written in rows, at positions where the unit stands, a site on
maps becomes a site between an input (the patches) and an output (what the targets ask for, pulled back to those positions),
and every initializer for vectors begins the units of a convolution. Their weights are then folded back into kernels
(growth_math 1.7).

Functional gradients and residuals are pulled back alike: what a target reads already was projected out where it is read, which
the positions of the units do not know.

Pulled back through one tap of every target (``taps = "centre"``) the norm of what the units add is exact too, at the price
of a smaller gain: enough to find directions whose fan-out is refitted afterwards. Through all taps the derivative of the
loss is exact, and kernels of old and new units can be shared out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from raygrow.architecture import (
    INPUT,
    OUTPUT,
    AbstractReading,
    Architecture,
    Convolution,
    Edge,
    Node,
    Pooled,
    Site,
)
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.meter import Meter
from raygrow.growth.rows import Rows
from raygrow.growth.statistics import Fold, RowsTable, picked, rows_of
from raygrow.nn import Extension, Network, bias_name, weight_name
from raygrow.nn.maps import map_of

Taps = Literal["centre", "all"]
UNITS = "h1"
"""Name of the existing units in an unrolled network."""


class _Lazy(dict[str, Tensor]):
    """Tensors that are computed when they are asked for first."""

    def __init__(self, makers: Mapping[str, Callable[[], Tensor]]) -> None:
        super().__init__()
        self._makers = makers

    def __missing__(self, name: str) -> Tensor:
        self[name] = found = self._makers[name]()
        return found

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._makers


class _PulledResiduals(Residuals):
    """Residuals of the output that were projected at the targets and then pulled back.

    Args:
        pulled: G_perp of all targets where the units stand, [rows, columns].
    """

    def __init__(self, fold: Fold, meter: Meter, pulled: Callable[[], Tensor]) -> None:
        super().__init__(fold, meter)
        self._pulled = pulled

    def perp_of(self, target: str) -> Tensor:
        if target not in self._perp:
            self._perp[target] = self.regression(target).free(self._pulled(), self.meter)
        return self._perp[target]

    def cross(self, left: Tensor, target: str) -> Tensor:
        self.perp_of(target)
        return super().cross(left, target)

    def along(self, directions: Tensor, targets: Sequence[str]) -> Tensor:
        self.perp(targets)
        return super().along(directions, targets)


@dataclass(frozen=True)
class Unrolled:
    """A site in rows.

    Attributes:
        site: between the vectors of ``residuals``.
        residuals: of the rows.
        original: the site that it stands for.
        arch: of the network with the maps.
        taps: of each target, through which what it asks for was pulled back.
    """

    site: Site
    residuals: Residuals
    original: Site
    arch: Architecture
    taps: Taps

    def restore(self, extension: Extension) -> Extension:
        """New weights of the rows as kernels."""
        arch, site = self.arch, self.original
        if site.activation is None:
            assert extension.edge is not None
            (source,), (target,), (reading,) = site.sources, site.targets, site.reads
            node = arch.by_name[source]
            return Extension(
                edge=extension.edge.reshape(reading.weight_shape(node.size, node.value_grid, arch.size(target)))
            )
        assert extension.bias is not None
        k = len(extension.bias)
        fan_in = self._fan_in(extension.fan_in[INPUT], k)
        fan_out = self._fan_out(extension.fan_out[OUTPUT])
        return Extension(fan_in, extension.bias, fan_out, rewritten=self._rewritten(extension.rewritten))

    def _fan_in(self, matrix: Tensor, k: int) -> dict[str, Tensor]:
        nodes = [self.arch.by_name[source] for source in self.original.sources]
        shapes = [
            reading.weight_shape(node.size, node.value_grid, k)
            for node, reading in zip(nodes, self.original.reads, strict=True)
        ]
        blocks = torch.split(matrix, [prod(shape[1:]) for shape in shapes], 1)
        triples = zip(self.original.sources, blocks, shapes, strict=True)
        return {source: block.reshape(shape) for source, block, shape in triples}

    def _fan_out(self, matrix: Tensor) -> dict[str, Tensor]:
        """[columns, k] to kernels [q, k, *taps] by target."""
        site, k = self.original, matrix.shape[1]
        widths = [_columns(self.arch, site, i, self.taps) for i in range(len(site.targets))]
        found: dict[str, Tensor] = {}
        blocks = torch.split(matrix, widths)
        for target, reading, block in zip(site.targets, site.feeds, blocks, strict=True):
            q, taps = self.arch.size(target), reading.taps(site.value_grid)
            if self.taps == "all":
                found[target] = block.view(q, prod(taps), k).transpose(1, 2).reshape(q, k, *taps)
            else:
                found[target] = _centred(block, reading, taps)
        return found

    def _rewritten(self, rewritten: Mapping[str, Tensor]) -> dict[str, Tensor]:
        node = self.original.node
        found: dict[str, Tensor] = {}
        for name, tensor in rewritten.items():
            assert node is not None
            if name == weight_name(INPUT, UNITS):
                found |= {weight_name(s, node): w for s, w in self._fan_in(tensor, len(tensor)).items()}
            elif name == weight_name(UNITS, OUTPUT):
                found |= {weight_name(node, t): w for t, w in self._fan_out(tensor).items()}
            elif name == bias_name(UNITS):
                found[bias_name(node)] = tensor
        return found


def _centred(block: Tensor, reading: AbstractReading, taps: tuple[int, ...]) -> Tensor:
    """A matrix [q, k] as the centre taps of kernels; over all cells where cells are read."""
    kernel = block.new_zeros(*block.shape, *taps)
    if isinstance(reading, Convolution):
        centre = sum(n // 2 * stride for n, stride in zip(reading.kernel, (*reading.kernel[1:], 1), strict=True))
        kernel.flatten(2)[:, :, centre] = block
    else:
        kernel[:] = block.view(*block.shape, *(1 for _ in taps)) / prod(taps)
    return kernel


def _columns(arch: Architecture, site: Site, i: int, taps: Taps) -> int:
    return arch.size(site.targets[i]) * (prod(site.feeds[i].taps(site.value_grid)) if taps == "all" else 1)


def unroll(residuals: Residuals, site: Site, taps: Taps, meter: Meter) -> Unrolled:
    """Write a site on maps in rows."""
    if site.activation is None:
        return _unroll_edge(residuals, site)
    fold = residuals.fold
    arch = fold.arch
    rows = fold.patches(site.sources, site.reads, site.grid)
    widths = [_columns(arch, site, i, taps) for i in range(len(site.targets))]
    node = arch.by_name[site.node] if site.node else None
    nodes = [Node(INPUT, rows.p - 1, "identity"), Node(OUTPUT, sum(widths), "identity")]
    edges = [Edge(INPUT, OUTPUT)] if blind(arch, site) else []
    if node is not None:
        nodes.insert(1, Node(UNITS, node.size, node.activation))
        edges += [Edge(INPUT, UNITS), Edge(UNITS, OUTPUT)]
    network = Network(Architecture(tuple(nodes), tuple(edges)), dtype=rows.matrix.dtype).to(rows.matrix.device)
    values: dict[str, Callable[[], Tensor]] = {}
    if node is not None:
        _copy_weights(fold.network, network, site, taps)
        values[UNITS] = lambda: _existing(fold.network, network, rows, site)
    table: RowsTable = {(INPUT,): rows}
    read = _Lazy(values)
    read[INPUT] = rows.matrix[:, :-1]
    gradients = _Lazy({OUTPUT: lambda: _pulled(residuals, site, rows.n, taps, projected=False)})
    written = Fold(network, read, gradients, {}, table, cluster=rows.n // len(fold))
    dense = Site((INPUT,), (OUTPUT,), site.activation, node=UNITS if node else None)
    asked = _PulledResiduals(written, meter, lambda: _pulled(residuals, site, rows.n, taps, projected=True))
    return Unrolled(dense, asked, site, arch, taps)


def _unroll_edge(residuals: Residuals, site: Site) -> Unrolled:
    """What the new edge would read, beside what its target reads already."""
    fold = residuals.fold
    (source,), (target,), (reading,) = site.sources, site.targets, site.reads
    read = rows_of(fold.values[source], reading, fold.positions(site.grid))
    known = fold.into(target)
    nodes = (
        Node(INPUT, read.shape[1], "identity"),
        Node(UNITS, max(known.p - 1, 1), "identity"),
        Node(OUTPUT, fold.arch.size(target), "identity"),
    )
    arch = Architecture(nodes, (Edge(INPUT, UNITS), Edge(UNITS, OUTPUT)))
    table: RowsTable = {(UNITS,): known}
    values = {INPUT: read, UNITS: known.matrix[:, :-1]}
    network = Network(arch, dtype=read.dtype).to(read.device)
    gradients = {OUTPUT: fold.gradients[target]}
    written = Fold(network, values, gradients, {}, table, cluster=known.n // len(fold))
    dense = Site((INPUT,), (OUTPUT,), None)
    return Unrolled(dense, Residuals(written, residuals.meter), site, fold.arch, "centre")


def _pulled(residuals: Residuals, site: Site, rows: int, taps: Taps, *, projected: bool) -> Tensor:
    """G (or G_perp) of all targets where the units stand, [rows, columns]."""
    fold = residuals.fold
    parts = []
    for target, reading in zip(site.targets, site.feeds, strict=True):
        grid = fold.arch.by_name[target].grid
        if taps == "centre" and (not grid or (grid == site.grid and site.pool == 1 and reading.in_place)):
            # The positions looked at are the same ones; a mean over a map is looked at from all of them.
            at_target = residuals.perp_of(target) if projected else fold.gradients[target]
            parts.append(at_target.repeat_interleave(rows // len(at_target), 0))
            continue
        feeding = map_of(reading, site.value_grid)
        everywhere = residuals.perp_map(target) if projected else residuals.gradient_map(target)
        found = feeding.spread(everywhere) if taps == "centre" else feeding.spread_taps(everywhere)
        parts.append(picked(_unpooled(found, site), fold.positions(site.grid)))
    return torch.cat(parts, 1)


@torch.no_grad()
def _existing(network: Network, written: Network, rows: Rows, site: Site) -> Tensor:
    """Values of the existing units at the rows, before any pooling."""
    before = rows.matrix[:, :-1] @ written.named[weight_name(INPUT, UNITS)].T + written.named[bias_name(UNITS)]
    (layer,) = (step.layer for step in network.steps if step.name == site.node)
    return layer.at_rows(before)


def _unpooled(values: Tensor, site: Site) -> Tensor:
    """Something at the positions of the units' values, at those of their pre-activations; shared out evenly."""
    for axis in range(len(site.grid)) if site.pool > 1 else ():
        index = torch.arange(site.grid[axis], device=values.device) // site.pool
        values = values.index_select(2 + axis, index.clamp_max(values.shape[2 + axis] - 1))
    return values


@torch.no_grad()
def _copy_weights(network: Network, written: Network, site: Site, taps: Taps) -> None:
    """Of the existing units, as matrices; the fan-out where every tap has a column."""
    assert site.node is not None
    named = network.named
    blocks = [named[weight_name(source, site.node)].flatten(1) for source in site.sources]
    written.named[weight_name(INPUT, UNITS)].copy_(torch.cat(blocks, 1))
    written.named[bias_name(UNITS)].copy_(named[bias_name(site.node)])
    if taps == "all":
        outs = [named[weight_name(site.node, target)] for target in site.targets]
        columns = [out.view(*out.shape[:2], -1).transpose(1, 2).flatten(0, 1) for out in outs]
        written.named[weight_name(UNITS, OUTPUT)].copy_(torch.cat(columns))


def blind(arch: Architecture, site: Site) -> bool:
    """Whether a linear unit of this site could add nothing: every target reads already whatever it would pass on."""
    return all(
        _covered(arch.readings.get((source, target)), reads, feeds)
        for source, reads in zip(site.sources, site.reads, strict=True)
        for target, feeds in zip(site.targets, site.feeds, strict=True)
    )


def _covered(existing: AbstractReading | None, reads: AbstractReading, feeds: AbstractReading) -> bool:
    """Whether an existing reading of a source spans what one would give that passes through units, by their centre tap."""
    if existing is None:
        return False
    if isinstance(feeds, Convolution):
        return (
            isinstance(existing, Convolution)
            and isinstance(reads, Convolution)
            and existing.stride == tuple(a * b for a, b in zip(reads.stride, feeds.stride, strict=True))
            and all(k >= own for k, own in zip(existing.kernel, reads.kernel, strict=True))
        )
    if isinstance(feeds, Pooled):
        # A mean over a map of patches is, up to the border, a mean over the map they are cut from.
        return isinstance(existing, Pooled)
    return existing == reads
