"""A matrix between vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from raygrow.architecture.readings.base import AbstractReading, Grid
from raygrow.errors import MoveError


@final
@dataclass(frozen=True, slots=True)
class Linear(AbstractReading):
    """A matrix between vectors."""

    kind: ClassVar[str] = "linear"

    def grid(self, source: Grid) -> Grid:
        if source:
            raise MoveError(f"a linear reading takes a vector, but got a value with positions {source}: pool it")
        return ()

    def taps(self, source: Grid) -> tuple[int, ...]:
        return ()

    @property
    def label(self) -> str:
        return ""
