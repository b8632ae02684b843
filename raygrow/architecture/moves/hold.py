"""The control arm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from raygrow.architecture.moves.base import AbstractMove
from raygrow.architecture.palette import Palette
from raygrow.architecture.spec import Architecture


@final
@dataclass(frozen=True, slots=True)
class Hold(AbstractMove):
    """No change: the control arm of every probe."""

    kind: ClassVar[str] = "hold"

    @property
    def site(self) -> str:
        return ""

    @property
    def units(self) -> int:
        return 0

    def apply(self, arch: Architecture) -> Architecture:
        return arch

    def place(self, arch: Architecture) -> None:
        return None

    @classmethod
    def enumerate(cls, arch: Architecture, units: Sequence[int], palette: Palette) -> Iterator[Hold]:
        yield cls()
