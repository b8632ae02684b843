"""One-step prediction of the viscous Burgers equation, u_t + u u_x = viscosity u_xx: smooth waves that steepen into fronts.

The equation is solved in closed form (Hopf 1950; Cole 1951), so that rows carry no error of an integrator: the state after
a time is a weighted average of the initial one, with weights that a heat kernel and the initial potential give.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raygrow.data.base import AbstractSource, Raw, stream

# Points of the quadrature: at least so many round the ring, and so many in a standard deviation of what is averaged over.
# The trapezoidal rule on a ring converges faster than any power, and at two points a deviation is exact to rounding.
LEAST_POINTS = 256
POINTS_A_DEVIATION = 2
BLOCK = 1024


@dataclass(frozen=True, kw_only=True)
class Burgers(AbstractSource):
    """Viscous Burgers equation: predict how a random smooth wave on a ring changes over one interval."""

    kind: Literal["burgers"] = "burgers"
    """The name of this kind of data."""
    variables: int = 8
    """Points of the ring at which the wave is read: features, and as many targets; at least 4."""
    rows: int = 10000
    """Rows in all, before the split, each from an initial wave of its own; at least 10."""
    modes: int = 2
    """Fourier modes of the initial wave, at least 1; their amplitudes are Gaussian and fall as 1 / wave number."""
    viscosity: float = 0.2
    """At least 0.01 and at most 10; the ring is 2 pi round and the wave has unit variance."""
    interval: float = 0.3
    """Time between the wave and the one to be predicted, at least 0.01 and at most 10."""
    seed: int | None = None
    """Seed of the initial waves, an integer >= 0; null: the campaign's seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("variables", 4), ("rows", 10), ("modes", 1), ("seed", 0)):
            self._at_least(field, least)
        for field in ("viscosity", "interval"):
            self._at_least(field, 0.01)
            self._within(field, 0.0, 10.0)

    def load(self, seed: int) -> Raw:
        draws = stream("burgers", seed if self.seed is None else self.seed)
        x = np.empty((self.rows, self.variables))
        y = np.empty_like(x)
        for start in range(0, self.rows, BLOCK):
            block = slice(start, start + BLOCK)
            x[block], later = self._waves(draws, len(x[block]))
            y[block] = later - x[block]
        return Raw(
            name=self.kind,
            task="regression",
            x=x,
            y=y,
            features=tuple(f"u{i}" for i in range(self.variables)),
            targets=tuple(f"increment{i}" for i in range(self.variables)),
        )

    def _waves(self, draws: np.random.Generator, rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Random waves now and after the interval, both [rows, variables]."""
        number = np.arange(1, self.modes + 1)
        share = 1.0 / (number * math.sqrt(np.sum(1.0 / number**2)))
        cosine, sine = share * draws.standard_normal((2, rows, self.modes))
        deviation = math.sqrt(2.0 * self.viscosity * self.interval)
        # Where the wave is steep the weights narrow the kernel; four standard deviations of the slope are provided for.
        steepest = 4.0 * float(np.linalg.norm(share * number))
        narrowest = deviation / math.sqrt(1.0 + self.interval * steepest)
        fine = max(LEAST_POINTS, math.ceil(2.0 * math.pi * POINTS_A_DEVIATION / narrowest))
        # Whole steps from one point that is read to the next; no mode beyond what the quadrature resolves.
        step = -(-max(fine, 4 * self.modes) // self.variables)
        places = 2.0 * math.pi * np.arange(step * self.variables) / (step * self.variables)
        angles = np.outer(number, places)
        now = cosine @ np.cos(angles) + sine @ np.sin(angles)
        potential = (cosine / number) @ np.sin(angles) - (sine / number) @ np.cos(angles)
        # Weights are positive, so nothing cancels; the largest is 1.
        weights = np.exp((potential.min(axis=1, keepdims=True) - potential) / (2.0 * self.viscosity))
        kernel = _heat_kernel(places[:, None] - places[::step], deviation)
        return now[:, ::step], ((weights * now) @ kernel) / (weights @ kernel)


def _heat_kernel(distance: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """A Gaussian wrapped round the ring, unnormalised; ``distance`` lies within one turn."""
    most = math.ceil(6.0 * deviation / math.pi) + 1
    turns = range(-most, most + 1)
    kernel = np.zeros_like(distance)
    for turn in turns:
        kernel += np.exp(-0.5 * ((distance + 2.0 * math.pi * turn) / deviation) ** 2)
    return kernel
