"""What a reading is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from math import prod
from typing import Any, ClassVar

Grid = tuple[int, ...]


class AbstractReading(ABC):
    """One way to read a value: a frozen dataclass without weights."""

    kind: ClassVar[str]
    weighted: ClassVar[bool] = True
    """Whether it has a weight; one without adds the value as it is."""

    @abstractmethod
    def grid(self, source: Grid) -> Grid:
        """Positions of what is read from a value with these positions.

        Raises:
            MoveError: the reading does not fit such a value.
        """

    @abstractmethod
    def taps(self, source: Grid) -> tuple[int, ...]:
        """Weights of one source unit for one target unit, as a shape: () for one number, the kernel of a convolution."""

    def units(self, units: int, source: Grid) -> int:
        """Units that a reading without a weight gives of ``units`` at positions ``source``.

        Raises:
            MoveError: the reading does not fit such a value.
        """
        return units

    @property
    def in_place(self) -> bool:
        """Whether each position is read from around the same position of the source."""
        return False

    @property
    def label(self) -> str:
        """What tells it from the others in the name of a site; nothing for the plain linear map."""
        return self.kind

    def weight_shape(self, units: int, source: Grid, outputs: int) -> tuple[int, ...]:
        """Shape of the weight from ``units`` at positions ``source`` to ``outputs`` target units."""
        return (outputs, units, *self.taps(source))

    def flops(self, units: int, source: Grid, outputs: int) -> int:
        """Of one example's forward pass; backward to the weights costs as much, and so does backward to the value."""
        return 2 * prod(self.weight_shape(units, source, outputs)) * prod(self.grid(source)) if self.weighted else 0

    def to_json(self) -> dict[str, Any]:
        """Plain form, with ``kind``; inverse of ``reading_from_json``."""
        return {"kind": self.kind} | {
            f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v
            for f in fields(self)  # type: ignore[arg-type]
        }
