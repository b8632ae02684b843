"""What new nodes and edges may be made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from raygrow.architecture.readings import LINEAR, AbstractReading, Convolution, Grid, Pooled
from raygrow.architecture.spec import Node


class Bridge(NamedTuple):
    """A way to put a node between two others: what it reads, its positions, and how it is read."""

    reads: AbstractReading
    grid: Grid
    feeds: AbstractReading


@dataclass(frozen=True, slots=True)
class Palette:
    """What a campaign builds with.

    Attributes:
        activation, norm, dropout: of new nodes.
        kernels: odd sizes of convolutions, the smallest first.
        cells: a vector reads a map through at most so many means a dimension.
        dense_on_maps: whether a new vector node may read a map.
    """

    activation: str
    norm: str = "none"
    dropout: float = 0.0
    kernels: tuple[int, ...] = (3,)
    cells: int = 4
    dense_on_maps: bool = False

    def bridges(self, source: Node, target: Node) -> Iterator[Bridge]:
        """Nodes that could read ``source`` and feed ``target``."""
        read, fed = source.value_grid, target.grid
        if not read and not fed:
            yield Bridge(LINEAR, (), LINEAR)
        elif read and fed:
            stride = _stride(read, fed)
            for kernel in self.kernels if stride else ():
                # Strided on the way in: the new units then live on the smaller grid.
                yield Bridge(Convolution.same(kernel, len(read), stride), fed, Convolution.same(kernel, len(fed)))
        elif read:
            for kernel in self.kernels:
                yield Bridge(Convolution.same(kernel, len(read)), read, self.pooled(read))
            if self.dense_on_maps:
                yield Bridge(self.pooled(read), (), LINEAR)

    def skip(self, source: Node, target: Node) -> AbstractReading | None:
        """The cheapest reading that joins two nodes; None where none does."""
        read, fed = source.value_grid, target.grid
        if not read and not fed:
            return LINEAR
        if read and fed:
            stride = _stride(read, fed)
            return Convolution.same(1, len(read), stride) if stride else None
        return self.pooled(read) if read else None

    def pooled(self, grid: Grid) -> Pooled:
        """How a vector reads a map."""
        return Pooled(tuple(min(self.cells, n) for n in grid))

    def node(self, name: str, size: int, grid: Grid, activation: str | None = None) -> Node:
        """A new node of this palette."""
        blocks = (size,) if self.norm in ("layer", "group") else ()
        return Node(name, size, activation or self.activation, grid, self.norm, blocks, dropout=self.dropout)


def _stride(source: Grid, target: Grid) -> int:
    """The stride that takes one grid to the other under a centred odd kernel; 0 where there is none."""
    if len(source) != len(target):
        return 0
    for stride in range(1, max(source) + 1):
        if all(-(-n // stride) == m for n, m in zip(source, target, strict=True)):
            return stride
    return 0
