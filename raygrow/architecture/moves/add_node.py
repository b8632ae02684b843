"""A new layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from raygrow.architecture.activations import ACTIVATIONS
from raygrow.architecture.moves.base import AbstractMove, Site, check_ends, check_units, new_name, ordered_pairs
from raygrow.architecture.palette import Palette
from raygrow.architecture.readings import LINEAR, AbstractReading, Grid
from raygrow.architecture.spec import Architecture, Edge, least_units
from raygrow.errors import MoveError


@final
@dataclass(frozen=True, slots=True)
class AddNode(AbstractMove):
    """A new hidden node between any parents and children: how depth and parallel paths grow.

    Attributes:
        reads, feeds: how it reads each source, and each target it; linear where nothing is said.
        norm, dropout: of the new node.
    """

    kind: ClassVar[str] = "add_node"
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    size: int
    activation: str
    reads: tuple[AbstractReading, ...] = ()
    feeds: tuple[AbstractReading, ...] = ()
    norm: str = "none"
    dropout: float = 0.0

    @property
    def site(self) -> str:
        return str(Site(self.sources, self.targets, self.activation, self.reads, self.feeds))

    @property
    def units(self) -> int:
        return self.size

    def apply(self, arch: Architecture) -> Architecture:
        check_units(self)
        check_ends(self, arch, self.sources, self.targets)
        if self.activation not in ACTIVATIONS:
            raise MoveError(f"{self!r}: unknown activation; known: {', '.join(ACTIVATIONS)}")
        name, site = new_name(arch), self.place(arch)
        node = Palette(self.activation, self.norm, self.dropout).node(name, self.size, site.grid)
        edges = (
            *(Edge(s, name, reading) for s, reading in zip(self.sources, site.reads, strict=True)),
            *(Edge(name, t, reading) for t, reading in zip(self.targets, site.feeds, strict=True)),
        )
        return Architecture((*arch.nodes[:-1], node, arch.nodes[-1]), (*arch.edges, *edges))

    def place(self, arch: Architecture) -> Site:
        grid: Grid = ()
        if self.reads:
            grid = self.reads[0].grid(arch.by_name[self.sources[0]].value_grid)
        return Site(self.sources, self.targets, self.activation, self.reads, self.feeds, grid, self.norm)

    def landing(self, arch: Architecture) -> tuple[str, int]:
        return new_name(arch), 0

    @classmethod
    def enumerate(cls, arch: Architecture, units: Sequence[int], palette: Palette) -> Iterator[AddNode]:
        """One node between every ordered pair, and one reading all the inputs of a node that has several.

        Any other set of parents and children is legal too; listing them all would be exponential.
        """
        for source, target in ordered_pairs(arch):
            for reads, grid, feeds in palette.bridges(arch.by_name[source], arch.by_name[target]):
                yield from cls._sizes((source,), (target,), (reads,), (feeds,), grid, units, palette)
        for target in arch.order[1:]:
            parents = arch.parents(target)
            if len(parents) > 1 and not any(arch.by_name[name].grid for name in (*parents, target)):
                yield from cls._sizes(parents, (target,), (), (), (), units, palette)

    @classmethod
    def _sizes(
        cls,
        sources: tuple[str, ...],
        targets: tuple[str, ...],
        reads: tuple[AbstractReading, ...],
        feeds: tuple[AbstractReading, ...],
        grid: Grid,
        units: Sequence[int],
        palette: Palette,
    ) -> Iterator[AddNode]:
        # What is said of readings is said of those that are not plain matrices.
        reads, feeds = (() if {*given} <= {LINEAR} else given for given in (reads, feeds))
        least = least_units(palette.norm, grid)
        for count in units:
            if count >= least:
                yield cls(sources, targets, count, palette.activation, reads, feeds, palette.norm, palette.dropout)
