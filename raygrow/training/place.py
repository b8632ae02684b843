"""Where the parameters of networks lie in flat buffers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from raygrow.nn import Network

ALIGNMENT = 64
"""Elements at which regions of a buffer begin: whole cache lines, and whole unrolled vectors of any processor."""


def aligned(count: int) -> int:
    """The next place, from this one on, at which a region may begin."""
    return -(-count // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Place:
    """Where a piece of a network's parameter lies in the buffers, row by row.

    Attributes:
        fork: position of the network.
        name: of its parameter.
        piece: which entries of the parameter; all of them along dimensions that it does not name.
        shape: of the piece, all dimensions.
        start: in the buffers.
    """

    fork: int
    name: str
    piece: tuple[slice, ...]
    shape: tuple[int, ...]
    start: int

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.shape)

    def of(self, parameter: Tensor) -> Tensor:
        """The piece, as a view of the parameter or of anything in its shape."""
        return parameter[self.piece]

    def within(self, buffer: Tensor) -> Tensor:
        """The piece, as a view of a buffer."""
        return buffer[self.start : self.stop].view(self.shape)


def whole_parameters(fork: int, network: Network, start: int = 0) -> list[Place]:
    """A place for every parameter of a network, one after the other from ``start`` on, each aligned."""
    places: list[Place] = []
    for name, parameter in network.named.items():
        places.append(Place(fork, name, (), tuple(parameter.shape), start))
        start = aligned(places[-1].stop)
    return places
