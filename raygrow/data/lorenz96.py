"""One-step prediction of Lorenz-96, a chaotic ring of variables: a regression beyond any linear model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raygrow.data.base import AbstractSource, Raw, stream

# Long enough for a random state to fall onto the attractor, so that rows come from the system's own distribution.
SPIN_UP = 10.0
STEP = 0.01
BLOCK = 1024


@dataclass(frozen=True, kw_only=True)
class Lorenz96(AbstractSource):
    """Lorenz-96: predict how the state of a chaotic ring changes over one interval, from random states."""

    kind: Literal["lorenz96"] = "lorenz96"
    """The name of this kind of data."""
    variables: int = 8
    """Variables on the ring: features, and as many targets; at least 4."""
    rows: int = 10000
    """Rows in all, before the split, each from an initial state of its own; at least 10."""
    forcing: float = 8.0
    """External forcing, above 0 and at most 32; chaotic from about 5 on."""
    interval: float = 0.1
    """Time between the state and the one to be predicted, in the system's time units, above 0 and at most 10."""
    seed: int | None = None
    """Seed of the initial states, an integer >= 0; null: the campaign's seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("variables", 4), ("rows", 10), ("seed", 0)):
            self._at_least(field, least)
        self._within("forcing", 0.0, 32.0)
        self._within("interval", 0.0, 10.0)

    def load(self, seed: int) -> Raw:
        draws = stream("lorenz96", seed if self.seed is None else self.seed)
        x = draws.standard_normal((self.rows, self.variables))
        y = np.empty_like(x)
        # Blocks of rows stay in the processor's cache, which is several times faster than all rows at once.
        for start in range(0, self.rows, BLOCK):
            block = slice(start, start + BLOCK)
            state = _advance(np.ascontiguousarray(x[block].T), self.forcing, SPIN_UP, 4 * STEP)
            y[block] = (_advance(state, self.forcing, self.interval, STEP) - state).T
            x[block] = state.T
        return Raw(
            name=self.kind,
            task="regression",
            x=x,
            y=y,
            features=tuple(f"x{i}" for i in range(self.variables)),
            targets=tuple(f"increment{i}" for i in range(self.variables)),
        )


def _advance(state: NDArray[np.float64], forcing: float, time: float, step: float) -> NDArray[np.float64]:
    """Integrate states [variables, rows] over ``time`` by Runge-Kutta of order 4, in equal steps up to ``step``."""
    steps = max(1, math.ceil(time / step - 1e-9))
    h = time / steps
    for _ in range(steps):
        k1 = _derivative(state, forcing)
        k2 = _derivative(state + h / 2 * k1, forcing)
        k3 = _derivative(state + h / 2 * k2, forcing)
        k4 = _derivative(state + h * k3, forcing)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return state


def _derivative(x: NDArray[np.float64], forcing: float) -> NDArray[np.float64]:
    """dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + forcing, indices on a ring (the first axis)."""
    change: NDArray[np.float64] = (np.roll(x, -1, 0) - np.roll(x, 2, 0)) * np.roll(x, 1, 0) - x + forcing
    return change
