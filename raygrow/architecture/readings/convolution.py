"""Convolutions over signals and images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from raygrow.architecture.readings.base import AbstractReading, Grid
from raygrow.errors import MoveError


@final
@dataclass(frozen=True, slots=True)
class Convolution(AbstractReading):
    """A convolution over signals (one number a field) or images (two).

    Raises:
        MoveError: a number is out of range or the fields differ in length.
    """

    kind: ClassVar[str] = "convolution"
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.kernel) == len(self.stride) == len(self.padding) or len(self.kernel) not in (1, 2):
            raise MoveError(f"{self!r}: kernel, stride and padding must each have 1 or 2 numbers, and equally many")
        if min(*self.kernel, *self.stride) < 1 or min(self.padding) < 0:
            raise MoveError(f"{self!r}: `kernel >= 1`, `stride >= 1` and `padding >= 0` must hold")

    @classmethod
    def same(cls, kernel: int, dimensions: int, stride: int = 1) -> Convolution:
        """With the padding that keeps an odd kernel centred: ceil(length / stride) positions a dimension."""
        return cls((kernel,) * dimensions, (stride,) * dimensions, (kernel // 2,) * dimensions)

    def grid(self, source: Grid) -> Grid:
        if len(source) != len(self.kernel):
            raise MoveError(f"{self!r} takes {len(self.kernel)} dimensions of positions, but got {source}")
        found = tuple(
            (n + 2 * p - k) // s + 1 for n, k, s, p in zip(source, self.kernel, self.stride, self.padding, strict=True)
        )
        if min(found) < 1:
            raise MoveError(f"{self!r} finds no position in a grid of {source}: take a smaller kernel or more padding")
        return found

    def taps(self, source: Grid) -> tuple[int, ...]:
        return self.kernel

    @property
    def in_place(self) -> bool:
        return set(self.stride) == {1} and all(p == k // 2 for k, p in zip(self.kernel, self.padding, strict=True))

    @property
    def label(self) -> str:
        stride = "" if set(self.stride) == {1} else f"/{'x'.join(map(str, self.stride))}"
        return f"conv{'x'.join(map(str, self.kernel))}{stride}"
