"""Tokens: the positions of a map as units."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, final

from raygrow.architecture.readings.base import AbstractReading, Grid
from raygrow.errors import MoveError


@final
@dataclass(frozen=True, slots=True)
class Transposed(AbstractReading):
    """A map with its units and its positions exchanged, without a weight: [units, *grid] as [positions, *into].

    What reads the target by a matrix at each of its positions then mixes the positions of the source, one unit at a time: the
    token mixing of Tolstikhin et al. 2021, "MLP-Mixer". The same reading takes it back.

    Attributes:
        into: positions of the target, which number the units of the source.
    """

    kind: ClassVar[str] = "transposed"
    weighted: ClassVar[bool] = False
    into: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.into) not in (1, 2) or min(self.into) < 1:
            raise MoveError(f"{self!r}: `into` must be 1 or 2 numbers of at least 1")

    def grid(self, source: Grid) -> Grid:
        if not source:
            raise MoveError(f"{self!r} takes a value with positions, but got a vector")
        return self.into

    def units(self, units: int, source: Grid) -> int:
        if units != prod(self.into):
            raise MoveError(f"{self!r} takes as many units as it gives positions, {prod(self.into)}, but got {units}")
        return prod(source)

    def taps(self, source: Grid) -> tuple[int, ...]:
        return ()
