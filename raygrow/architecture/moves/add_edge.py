"""A skip connection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from raygrow.architecture.moves.base import AbstractMove, Site, check_ends, ordered_pairs
from raygrow.architecture.palette import Palette
from raygrow.architecture.readings import LINEAR, AbstractReading
from raygrow.architecture.spec import Architecture, Edge
from raygrow.errors import MoveError


@final
@dataclass(frozen=True, slots=True)
class AddEdge(AbstractMove):
    """A linear skip connection between two nodes that no edge joins yet."""

    kind: ClassVar[str] = "add_edge"
    source: str
    target: str
    reading: AbstractReading = LINEAR

    @property
    def site(self) -> str:
        return str(Site((self.source,), (self.target,), None, (self.reading,)))

    @property
    def units(self) -> int:
        return 0

    def apply(self, arch: Architecture) -> Architecture:
        check_ends(self, arch, (self.source,), (self.target,))
        if (self.source, self.target) in arch.readings:
            raise MoveError(f"{self!r}: the edge exists already")
        return Architecture(arch.nodes, (*arch.edges, Edge(self.source, self.target, self.reading)))

    def place(self, arch: Architecture) -> Site:
        return Site((self.source,), (self.target,), None, (self.reading,), grid=arch.by_name[self.target].grid)

    @classmethod
    def enumerate(cls, arch: Architecture, units: Sequence[int], palette: Palette) -> Iterator[AddEdge]:
        for source, target in ordered_pairs(arch):
            if (source, target) not in arch.readings:
                reading = palette.skip(arch.by_name[source], arch.by_name[target])
                if reading is not None:
                    yield cls(source, target, reading)
