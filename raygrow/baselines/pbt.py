"""Population-based training of a fixed network's learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

from raygrow.baselines.base import AbstractSearch
from raygrow.baselines.fixed import check_widths
from raygrow.population.pool_plan import check_least


@final
@dataclass(frozen=True, kw_only=True)
class Pbt(AbstractSearch):
    """A population of one fixed network whose worst quarter takes over the weights of the best and a rate near theirs, again
    and again (Jaderberg et al. 2017), by Ray Tune in step. The training FLOPs of all of them are the search's.
    """

    kind: Literal["pbt"] = "pbt"
    hidden: tuple[int, ...] = (64,)
    """Units of each hidden layer (channels of each stage), each at least 1; none is the linear model."""
    flops_per_example: int | None = None
    """The widths, in their proportions, of the least network of so many forward FLOPs per example; null: as they are."""
    population: int = 4
    """Networks, at least 2."""
    lr: tuple[float, float] = (1e-3, 3e-2)
    """Least and most learning rate at first, drawn log-uniformly; above 0. Later ones are 0.8 or 1.25 times one of them."""
    epochs: int = 40
    """Epochs of each, at least 1."""
    interval: int = 4
    """Epochs between exchanges, at least 1."""

    def __post_init__(self) -> None:
        check_widths(self.hidden)
        check_least(2, population=self.population)
        check_least(1, epochs=self.epochs, interval=self.interval, flops_per_example=self.flops_per_example)
        if not 0 < self.lr[0] <= self.lr[1] < math.inf:
            raise ValueError(f"`0 < least <= most` must hold for `lr`, but got {list(self.lr)}")
        if self.flops_per_example is not None and not self.hidden:
            raise ValueError("`flops_per_example` scales `hidden`, which must then name at least one width")
