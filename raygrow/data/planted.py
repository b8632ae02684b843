"""A bottleneck of known size: labels of a linear truth plus an even function that no linear model can follow.

|z| - E|z| is uncorrelated with every linear function of Gaussian inputs, and two ReLU units a direction compute it: a linear
model misses exactly this share, and an ``effect`` of 0 leaves it nothing to miss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raygrow.data.base import AbstractSource, Raw, stream
from raygrow.data.teacher import orthonormal

FOLDED_MEAN = math.sqrt(2.0 / math.pi)
FOLDED_SD = math.sqrt(1.0 - 2.0 / math.pi)
"""Mean and standard deviation of |z|, z standard normal."""


@dataclass(frozen=True, kw_only=True)
class Planted(AbstractSource):
    """Planted bottleneck: labels of a linear truth and of |z| in hidden directions, each of a given size."""

    kind: Literal["planted"] = "planted"
    """The name of this kind of data."""
    effect: float = 1.0
    """Standard deviation of each logit's share that no linear model follows, at least 0; 0: nothing is planted."""
    linear: float = 1.0
    """Standard deviation of each logit's linear share, at least 0; with ``effect`` 0 too, labels are pure noise."""
    inputs: int = 16
    """Number of features, at least 1."""
    directions: int = 4
    """Hidden directions, each worth two ReLU units; at least 1 and at most ``inputs``."""
    classes: int = 4
    """Number of classes, at least 2."""
    rows: int = 2000
    """Rows in all, before the split; at least 10."""
    seed: int | None = None
    """Seed of truth and rows, an integer >= 0; null: the campaign's seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("inputs", 1), ("directions", 1), ("classes", 2), ("rows", 10), ("seed", 0)):
            self._at_least(field, least)
        for field in ("effect", "linear"):
            value = getattr(self, field)
            if not 0.0 <= value <= 1000.0:
                raise ValueError(f"{field} must be at least 0 and at most 1000, got {value}: choose one in between")
        if self.directions > self.inputs:
            raise ValueError(
                f"directions must be at most inputs ({self.inputs}), got {self.directions}: lower it, or raise inputs"
            )

    def load(self, seed: int) -> Raw:
        draws = stream("planted", seed if self.seed is None else self.seed)
        x = draws.standard_normal((self.rows, self.inputs))
        folded = (np.abs(x @ orthonormal(draws, self.inputs, self.directions)) - FOLDED_MEAN) / FOLDED_SD
        logits = self.linear * x @ _columns(draws, self.inputs, self.classes)
        logits += self.effect * folded @ _columns(draws, self.directions, self.classes)
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


def _columns(draws: np.random.Generator, rows: int, columns: int) -> NDArray[np.float64]:
    """Random columns of norm 1, so that uncorrelated inputs of unit variance give logits of unit variance."""
    found = draws.standard_normal((rows, columns))
    return np.asarray(found / np.linalg.norm(found, axis=0), dtype=np.float64)
