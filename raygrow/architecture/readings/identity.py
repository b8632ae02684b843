"""The value as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from raygrow.architecture.readings.base import AbstractReading, Grid


@final
@dataclass(frozen=True, slots=True)
class Identity(AbstractReading):
    """The value itself, without a weight: the stream of a residual network. Source and target have equal shapes."""

    kind: ClassVar[str] = "identity"
    weighted: ClassVar[bool] = False

    @property
    def in_place(self) -> bool:
        return True

    def grid(self, source: Grid) -> Grid:
        return source

    def taps(self, source: Grid) -> tuple[int, ...]:
        return ()
