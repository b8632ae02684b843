"""Axes: from figures to pixels, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDE = 12.0
"""Figures that span more than this factor are laid out by their logarithm."""


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map of [low, high] to [begin, end] pixels."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return self.begin + (at - low) / (high - low) * (self.end - self.begin)

    def clamped(self, value: float) -> float:
        """The pixel of the nearest figure within the axis."""
        return self(min(max(value, self.low), self.high))

    def ticks(self) -> list[float]:
        """About five round figures within the axis."""
        return _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)


def scale_over(values: Sequence[float], begin: float, end: float, may_log: bool = False) -> Scale:
    """A scale that holds every value with a margin; logarithmic, where it may be, for positive figures that span much."""
    low, high = min(values), max(values)
    if may_log and low > 0 and high / low > WIDE:
        margin = (high / low) ** 0.05
        return Scale(low / margin, high * margin, begin, end, log=True)
    # One value alone, or values equal, still need an axis.
    width = (high - low) or abs(high) * 0.2 or 1.0
    return Scale(low - 0.06 * width, high + 0.06 * width, begin, end)


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 1e3 else (1,)
    return [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
