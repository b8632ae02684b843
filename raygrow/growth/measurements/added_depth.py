"""How much deeper a move makes the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from raygrow.architecture import AbstractMove, Architecture
from raygrow.growth.measurements.base import AbstractMeasurement, Subject


@final
class AddedDepth(AbstractMeasurement):
    """Layers that a move adds to the longest path from input to output: 0 for a wider node, a parallel one or a skip."""

    name = "added_depth"
    differentiates = False

    def measure(self, subject: Subject) -> Mapping[int, float]:
        arch = subject.residuals.fold.arch
        return {size: self.unplaced(move, arch) for size, move in subject.moves.items()}

    def unplaced(self, move: AbstractMove, arch: Architecture) -> float:
        return float(move.apply(arch).depth - arch.depth)
