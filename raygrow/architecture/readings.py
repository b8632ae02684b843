"""Readings: how the value of one node enters the pre-activation of another.

A value has *units* (channels) and a *grid* of positions: () for a vector, (length,) for a signal, (height, width) for an
image. Every weighted reading is a matrix applied to *rows*: the linear map to a vector, the patches of a convolution, the
cells of a pooled map. So one mathematics of growth serves them all; ``raygrow.nn.maps`` holds their tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import prod
from typing import Any, ClassVar, final

from raygrow.errors import MoveError

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


READINGS: tuple[type[AbstractReading], ...] = (Linear, Convolution, Pooled, Identity)
LINEAR = Linear()


def reading_from_json(form: Mapping[str, Any]) -> AbstractReading:
    """Inverse of ``AbstractReading.to_json``."""
    for cls in READINGS:
        if cls.kind == form.get("kind"):
            given = {k: tuple(v) if isinstance(v, list) else v for k, v in form.items() if k != "kind"}
            return cls(**given)
    raise MoveError(f"unknown reading {form.get('kind')!r}; known: {', '.join(r.kind for r in READINGS)}")
