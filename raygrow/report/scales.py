"""Axes: from figures to pixels, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MARGIN = 0.06
"""Free part of an axis at either end."""


class Stretch(NamedTuple):
    """A monotone map of figures before they are laid out evenly, and its inverse."""

    there: Callable[[float], float]
    back: Callable[[float], float]


LOG = Stretch(math.log, math.exp)
ROOT = Stretch(lambda value: math.copysign(math.sqrt(abs(value)), value), lambda root: math.copysign(root * root, root))
_PLAIN = Stretch(float, float)


@dataclass(frozen=True)
class Scale:
    """A map of [low, high] to [begin, end] pixels; linear without a stretch."""

    low: float
    high: float
    begin: float
    end: float
    stretch: Stretch | None = None

    def __call__(self, value: float) -> float:
        there = (self.stretch or _PLAIN).there
        low, high = there(self.low), there(self.high)
        return self.begin + (there(value) - low) / (high - low) * (self.end - self.begin)

    def clamped(self, value: float) -> float:
        """The pixel of the nearest figure within the axis."""
        return self(min(max(value, self.low), self.high))

    def ticks(self) -> list[float]:
        """A few round figures within the axis."""
        return _linear_ticks(self.low, self.high) if self.stretch is None else self._spaced()

    def _spaced(self) -> list[float]:
        """0 and the figures 1, 2, 5 times a power of ten, the largest first, as long as they do not crowd."""
        largest = max(abs(self.low), abs(self.high))
        top = math.ceil(math.log10(largest))
        ladder = [factor * 10.0**power for power in range(top, top - 7, -1) for factor in (5, 2, 1)]
        gap = abs(self.end - self.begin) / 9
        found: list[float] = []
        for tick in [0.0, *(sign * step for step in ladder for sign in (1, -1))]:
            if self.low <= tick <= self.high and all(abs(self(tick) - self(other)) >= gap for other in found):
                found.append(tick)
        return sorted(found)


def fits_log(values: Sequence[float]) -> bool:
    """Whether figures are positive and span more than an order of magnitude."""
    return min(values) > 0 and max(values) / min(values) > 12


def scale_over(values: Sequence[float], begin: float, end: float, stretch: Stretch | None = None) -> Scale:
    """A scale that holds every value with a margin."""
    there, back = stretch or _PLAIN
    low, high = there(min(values)), there(max(values))
    # One value alone, or values equal, still need an axis.
    width = (high - low) or abs(high) * 0.2 or 1.0
    return Scale(back(low - MARGIN * width), back(high + MARGIN * width), begin, end, stretch)


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]
