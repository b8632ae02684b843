"""A residual block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from raygrow.architecture.activations import ACTIVATIONS
from raygrow.architecture.moves.base import AbstractMove, Site, check_units, new_name
from raygrow.architecture.palette import Palette
from raygrow.architecture.readings import LINEAR, AbstractReading, Convolution, Identity
from raygrow.architecture.spec import Architecture, Edge, Node, least_units
from raygrow.errors import MoveError


@final
@dataclass(frozen=True, slots=True)
class AddBlock(AbstractMove):
    """A block after a node s of a stream: s' = s + D f(U s), which takes over the outgoing edges of s.

    The value of s is its pre-activation, and at birth s' equals s. So the gradient at s' is the one at s, what the weights into
    s can follow they can follow for s' too, and the new units stand at the site that reads s and feeds s: a layer is begun,
    predicted and searched for by the same mathematics as a unit (growth_math 2.1).

    Attributes:
        after: a hidden node that is linear: the identity is its activation, and it has no norm, pooling or dropout.
        size: units within the block.
        reading: how they read s, and s' them; it keeps the positions.
        norm, dropout: of the units.
    """

    kind: ClassVar[str] = "add_block"
    after: str
    size: int
    activation: str
    reading: AbstractReading = LINEAR
    norm: str = "none"
    dropout: float = 0.0

    @property
    def site(self) -> str:
        return str(Site((self.after,), (self.after,), self.activation, (self.reading,), (self.reading,)))

    @property
    def units(self) -> int:
        return self.size

    def apply(self, arch: Architecture) -> Architecture:
        check_units(self)
        if self.activation not in ACTIVATIONS:
            raise MoveError(f"{self!r}: unknown activation; known: {', '.join(ACTIVATIONS)}")
        if self.after not in arch.hidden or not arch.by_name[self.after].linear:
            raise MoveError(f"{self!r}: a block stands after a linear hidden node, but {self.after!r} is none")
        stream = arch.by_name[self.after]
        if self.reading.grid(stream.value_grid) != stream.value_grid:
            raise MoveError(f"{self!r}: the block must keep the positions {stream.value_grid}")
        inner, _ = self.landing(arch)
        before, after = self.succession(arch)
        nodes = (
            Palette(self.activation, self.norm, self.dropout).node(inner, self.size, stream.grid),
            Node(after, stream.size, stream.activation, stream.grid),
        )
        edges = (
            *(Edge(after if e.source == before else e.source, e.target, e.reading) for e in arch.edges),
            Edge(before, inner, self.reading),
            Edge(inner, after, self.reading),
            Edge(before, after, Identity()),
        )
        return Architecture((*arch.nodes[:-1], *nodes, arch.nodes[-1]), edges)

    def place(self, arch: Architecture) -> Site:
        grid = arch.by_name[self.after].grid
        readings = (self.reading,)
        return Site((self.after,), (self.after,), self.activation, readings, readings, grid, self.norm)

    def landing(self, arch: Architecture) -> tuple[str, int]:
        return new_name(arch), 0

    def succession(self, arch: Architecture) -> tuple[str, str]:
        return self.after, new_name(arch, 1)

    @classmethod
    def enumerate(cls, arch: Architecture, units: Sequence[int], palette: Palette) -> Iterator[AddBlock]:
        for name in arch.hidden:
            node = arch.by_name[name]
            if node.linear:
                for kernel in palette.kernels if node.grid else (0,):
                    reading = Convolution.same(kernel, len(node.grid)) if node.grid else LINEAR
                    for count in units:
                        if count >= least_units(palette.norm, node.grid):
                            yield cls(name, count, palette.activation, reading, palette.norm, palette.dropout)
