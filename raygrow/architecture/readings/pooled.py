"""Vectors that read a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from raygrow.architecture.readings.base import AbstractReading, Grid
from raygrow.errors import MoveError


@final
@dataclass(frozen=True, slots=True)
class Pooled(AbstractReading):
    """The means over ``cells`` that tile a map, and a matrix on them: global pooling with one cell, flattening with as many
    cells as positions.

    Cells are those of ``torch.nn.functional.adaptive_avg_pool2d``: they may overlap where the numbers do not divide.
    """

    kind: ClassVar[str] = "pooled"
    cells: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.cells) not in (1, 2) or min(self.cells) < 1:
            raise MoveError(f"{self!r}: `cells` must be 1 or 2 numbers of at least 1")

    def grid(self, source: Grid) -> Grid:
        if len(source) != len(self.cells) or any(c > n for c, n in zip(self.cells, source, strict=True)):
            raise MoveError(f"{self!r} takes a grid of at least {self.cells} positions, but got {source}")
        return ()

    def taps(self, source: Grid) -> tuple[int, ...]:
        return self.cells

    @property
    def label(self) -> str:
        return f"pool{'x'.join(map(str, self.cells))}"
