"""Asynchronous successive halving over widths, depths and rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from raygrow.baselines.base import AbstractSearch
from raygrow.baselines.random_search import check_space
from raygrow.population.pool_plan import check_least


@final
@dataclass(frozen=True, kw_only=True)
class Asha(AbstractSearch):
    """Fixed networks of drawn widths, depths and rates, of which the hopeless are stopped early: ASHA (Li et al. 2020) by Ray
    Tune, an epoch a step. The training FLOPs of all of them are the search's.

    The configurations follow from the seed; which are stopped depends on the order in which they come in, and so do the
    figures unless they run one at a time.
    """

    kind: Literal["asha"] = "asha"
    trials: int = 16
    """Configurations drawn, at least 1. One above the budget of FLOPs per example is drawn and not trained."""
    hidden_layers: tuple[int, ...] = (0, 1, 2)
    """Numbers of hidden layers (stages) to draw from, each at least 0."""
    width: tuple[int, int] = (4, 256)
    """Least and most units of a layer, drawn log-uniformly; at least 1."""
    lr: tuple[float, float] = (1e-3, 3e-2)
    """Least and most learning rate at the first step, drawn log-uniformly; above 0. Half a cosine over all epochs takes it to
    0."""
    epochs: int = 40
    """Most epochs of a configuration, at least 1."""
    grace_epochs: int = 3
    """Epochs before one may be stopped, at least 1."""
    reduction_factor: int = 3
    """One in so many goes on at each halving, at least 2."""

    def __post_init__(self) -> None:
        check_least(1, trials=self.trials, epochs=self.epochs, grace_epochs=self.grace_epochs)
        check_least(2, reduction_factor=self.reduction_factor)
        check_space(self.hidden_layers, self.width, self.lr)
