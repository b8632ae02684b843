"""Labels drawn from a random ReLU network: a task whose best solution is known to be a small hidden layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raygrow.data.base import AbstractSource, Raw, stream

# A rectified Gaussian is three quarters linear in variance; cutting at half a standard deviation instead of at 0 leaves
# about half, so that a linear classifier has a sizeable but clearly insufficient share of the task.
THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class Teacher(AbstractSource):
    """Random teacher network: Gaussian inputs, labels drawn from the softmax of a random ReLU network."""

    kind: Literal["teacher"] = "teacher"
    """The name of this kind of data."""
    inputs: int = 16
    """Number of features, at least 1."""
    units: int = 12
    """Units in each hidden layer of the teacher, at least 1."""
    depth: int = 1
    """Hidden layers of the teacher, at least 1."""
    classes: int = 6
    """Number of classes, at least 2."""
    rows: int = 8000
    """Rows in all, before the split; at least 10."""
    scale: float = 8.0
    """Standard deviation of each logit, above 0 and at most 1,000: small values make the labels noisy."""
    seed: int | None = None
    """Seed of teacher and rows, an integer >= 0; null: the campaign's seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("inputs", 1), ("units", 1), ("depth", 1), ("classes", 2), ("rows", 10), ("seed", 0)):
            self._at_least(field, least)
        self._within("scale", 0.0, 1000.0)

    def load(self, seed: int) -> Raw:
        draws = stream("teacher", seed if self.seed is None else self.seed)
        x = draws.standard_normal((self.rows, self.inputs))
        hidden = x
        for _ in range(self.depth):
            directions = orthonormal(draws, hidden.shape[1], self.units)
            hidden = np.maximum(_standardised(hidden @ directions) - THRESHOLD, 0.0)
        logits = self.scale * _standardised(hidden @ draws.standard_normal((self.units, self.classes)))
        # The largest of logits plus Gumbel noise is a draw from their softmax.
        labels = np.argmax(logits + draws.gumbel(size=logits.shape), axis=1)
        return Raw(
            name=self.kind,
            task="classification",
            x=x,
            y=labels.astype(np.int64),
            features=tuple(f"x{i}" for i in range(self.inputs)),
            targets=("label",),
        )


def _standardised(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns of zero mean and unit variance; a constant column becomes 0."""
    deviation = z.std(axis=0)
    centred: NDArray[np.float64] = z - z.mean(axis=0)
    return np.where(deviation > 1e-12, centred / np.where(deviation > 1e-12, deviation, 1.0), 0.0)


def orthonormal(draws: np.random.Generator, inputs: int, units: int) -> NDArray[np.float64]:
    """Random directions [inputs, units], orthonormal within each block of ``inputs`` columns.

    Units that look in different directions make the difficulty of the task vary little from seed to seed.
    """
    blocks = [
        np.linalg.qr(draws.standard_normal((inputs, min(inputs, units - start))))[0]
        for start in range(0, units, inputs)
    ]
    return np.concatenate(blocks, axis=1)
