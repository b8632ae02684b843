"""More units in a layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from raygrow.architecture.moves.base import AbstractMove, Site, check_units, is_stream
from raygrow.architecture.palette import Palette
from raygrow.architecture.spec import Architecture, least_units
from raygrow.errors import MoveError


@final
@dataclass(frozen=True, slots=True)
class Widen(AbstractMove):
    """More units in an existing hidden node."""

    kind: ClassVar[str] = "widen"
    node: str
    added: int

    @property
    def site(self) -> str:
        return self.node

    @property
    def units(self) -> int:
        return self.added

    def apply(self, arch: Architecture) -> Architecture:
        check_units(self)
        if self.node not in arch.hidden:
            raise MoveError(f"{self!r}: {self.node!r} is no hidden node; hidden nodes: {arch.hidden}")
        if is_stream(arch, self.node):
            raise MoveError(f"{self!r}: a weightless edge ties the size of {self.node!r} to another node's")
        grown = tuple(node.widened(self.added) if node.name == self.node else node for node in arch.nodes)
        return Architecture(grown, arch.edges)

    def place(self, arch: Architecture) -> Site:
        sources, targets, node = arch.parents(self.node), arch.children(self.node), arch.by_name[self.node]
        return Site(
            sources,
            targets,
            node.activation,
            tuple(arch.readings[source, self.node] for source in sources),
            tuple(arch.readings[self.node, target] for target in targets),
            node.grid,
            node.norm,
            node.pool,
            self.node,
        )

    def landing(self, arch: Architecture) -> tuple[str, int]:
        return self.node, arch.size(self.node)

    @classmethod
    def enumerate(cls, arch: Architecture, units: Sequence[int], palette: Palette) -> Iterator[Widen]:
        for name in arch.hidden:
            node = arch.by_name[name]
            if not is_stream(arch, name):
                yield from (cls(name, count) for count in units if count >= least_units(node.norm, node.grid))
