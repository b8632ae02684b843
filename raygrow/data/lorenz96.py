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
    """Integrate states [variables, rows] over ``time`` by Runge-Kutta of order 4, in equal steps up to ``step``.

    dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + forcing, indices on a ring. In place, which is three times as fast.
    """
    steps = max(1, math.ceil(time / step - 1e-9))
    h = time / steps
    # Two variables more before the first and one after the last close the ring without a copy for each neighbour.
    ring = np.empty((len(state) + 3, state.shape[1]))
    here, before, second_before, after = ring[2:-1], ring[1:-2], ring[:-3], ring[3:]
    change, total, state = np.empty_like(state), np.empty_like(state), state.copy()

    def derivative() -> None:
        ring[:2], ring[-1] = here[-2:], here[0]
        np.subtract(after, second_before, out=change)
        np.multiply(change, before, out=change)
        np.subtract(change, here, out=change)
        np.add(change, forcing, out=change)

    for _ in range(steps):
        here[:] = state
        derivative()
        total[:] = change
        for ahead, weight in ((h / 2, 2), (h / 2, 2), (h, 1)):
            np.multiply(change, ahead, out=here)
            np.add(state, here, out=here)
            derivative()
            np.multiply(change, weight, out=here)
            np.add(total, here, out=total)
        np.multiply(total, h / 6, out=total)
        np.add(state, total, out=state)
    return state
