"""A layer in series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from raygrow.architecture.moves.base import AbstractMove, new_name
from raygrow.architecture.palette import Palette
from raygrow.architecture.readings import LINEAR, AbstractReading, Convolution
from raygrow.architecture.spec import Architecture, Edge
from raygrow.errors import MoveError

IDEMPOTENT = "relu"
"""The activation that leaves what it gave as it is: f(f(z)) = f(z). Of the others none does."""


@final
@dataclass(frozen=True, slots=True)
class InsertLayer(AbstractMove):
    """A new layer after a node, of its size, which takes over its outgoing edges: deeper by one, with the same function.

    Its weights are the identity (of a convolution: a 1 at the centre of the kernel) whatever initializer the member has, and
    what it reads is at least 0, so that its activation changes nothing (Chen et al. 2016, "Net2Net"). All of the matrix has a
    gradient at birth (growth_math 2.1). With other activations, and with a norm over units, that is not exact: there it is no
    move.

    Attributes:
        after: a hidden node whose activation is relu.
        size: units of the new layer, those of ``after``.
        norm: of the new layer, none or batch (which begins as the identity on the statistics examples).
    """

    kind: ClassVar[str] = "insert_layer"
    after: str
    size: int
    reading: AbstractReading = LINEAR
    norm: str = "none"
    dropout: float = 0.0

    @property
    def site(self) -> str:
        return f"{self.after}:{self.reading.label}" if self.reading.label else self.after

    @property
    def units(self) -> int:
        return self.size

    def apply(self, arch: Architecture) -> Architecture:
        if self.after not in arch.hidden:
            raise MoveError(f"{self!r}: {self.after!r} is no hidden node; hidden nodes: {arch.hidden}")
        node = arch.by_name[self.after]
        if node.activation != IDEMPOTENT or self.norm not in ("none", "batch"):
            raise MoveError(
                f"{self!r}: a layer can be the identity only after {IDEMPOTENT} and without a norm over units"
            )
        if self.size != node.size:
            raise MoveError(f"{self!r}: the new layer must have the {node.size} units of {self.after!r}")
        if self.reading.grid(node.value_grid) != node.value_grid:
            raise MoveError(f"{self!r}: the new layer must keep the positions {node.value_grid}")
        before, after = self.succession(arch)
        layer = Palette(IDEMPOTENT, self.norm, self.dropout).node(after, self.size, node.value_grid)
        edges = (Edge(after if e.source == before else e.source, e.target, e.reading) for e in arch.edges)
        return Architecture((*arch.nodes[:-1], layer, arch.nodes[-1]), (*edges, Edge(before, after, self.reading)))

    def place(self, arch: Architecture) -> None:
        return None

    def succession(self, arch: Architecture) -> tuple[str, str]:
        return self.after, new_name(arch)

    @classmethod
    def enumerate(cls, arch: Architecture, units: Sequence[int], palette: Palette) -> Iterator[InsertLayer]:
        norm = palette.norm if palette.norm == "batch" else "none"
        if palette.activation != IDEMPOTENT:
            return
        for name in arch.hidden:
            node = arch.by_name[name]
            if node.activation == IDEMPOTENT:
                kernels = palette.kernels if node.value_grid else (0,)
                for kernel in kernels:
                    reading = Convolution.same(kernel, len(node.value_grid)) if node.value_grid else LINEAR
                    yield cls(name, node.size, reading, norm, palette.dropout)
