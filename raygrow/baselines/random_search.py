"""Random search over widths, depths and rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np

from raygrow.architecture import Architecture, digest_seed
from raygrow.baselines.base import AbstractTrial, Repetition
from raygrow.baselines.course import Course, standing
from raygrow.baselines.nets import fixed_architecture, started, within_budget
from raygrow.errors import ConfigError
from raygrow.nn import Network
from raygrow.population.lengths import Length, check_length
from raygrow.population.pool_plan import check_least
from raygrow.training import Score


@final
@dataclass(frozen=True, kw_only=True)
class RandomSearch(AbstractTrial):
    """Fixed networks of drawn widths, depths and rates, each trained to its end; the best on validation (Bergstra and Bengio
    2012). All of them are paid for.

    With a budget of training FLOPs, a network that the rest of it does not pay for is passed over; only the first is cut to
    it.
    """

    kind: Literal["random_search"] = "random_search"
    trials: int = 16
    """Configurations drawn, at least 1. One above the budget of FLOPs per example is drawn and not trained."""
    hidden_layers: tuple[int, ...] = (0, 1, 2)
    """Numbers of hidden layers (stages) to draw from, each at least 0."""
    width: tuple[int, int] = (4, 256)
    """Least and most units of a layer, drawn log-uniformly; at least 1."""
    lr: tuple[float, float] = (1e-3, 3e-2)
    """Least and most learning rate at the first step, drawn log-uniformly; above 0."""
    examples: Length = "40 epochs"
    """Training examples of each, at least 1; also epochs."""

    def __post_init__(self) -> None:
        check_least(1, trials=self.trials)
        check_space(self.hidden_layers, self.width, self.lr)
        check_length("examples", self.examples, 1)

    def run(self, repetition: Repetition) -> dict[str, Any]:
        course = Course(repetition)
        best: tuple[Network, Score] | None = None
        trained = 0
        for arch, lr in self._drawn(repetition):
            wanted = course.length(self.examples)
            count = course.affordable(arch, wanted) if best else course.begin(arch, wanted)
            if count < wanted and best:
                continue
            trained += 1
            # Only the best so far stands in the history: that is what a search has to show.
            kept = len(course.history)
            found = course.train(started(arch, repetition.seed), count, lr)
            if best is None or standing(found[1]) > standing(best[1]):
                best = found
            else:
                del course.history[kept:]
        if best is None:
            raise ConfigError(
                f"`budget.max_flops_per_example`: none of the {self.trials} networks that were drawn is within it: draw "
                "smaller widths, or raise it"
            )
        return course.finish(self, *best, tried=trained, taken=1, rounds=trained)

    def _drawn(self, repetition: Repetition) -> Sequence[tuple[Architecture, float]]:
        """Networks and their rates, but those above the budget."""
        rng = np.random.default_rng(digest_seed("random_search", repetition.seed))
        drawn = []
        for _ in range(self.trials):
            layers = self.hidden_layers[rng.integers(len(self.hidden_layers))]
            low, high = math.log(self.width[0]), math.log(self.width[1] + 1)
            hidden = [int(math.exp(rng.uniform(low, high))) for _ in range(layers)]
            lr = math.exp(rng.uniform(math.log(self.lr[0]), math.log(self.lr[1])))
            drawn.append((fixed_architecture(repetition, hidden), lr))
        return [(arch, lr) for arch, lr in drawn if within_budget(repetition, arch)]


def check_space(hidden_layers: tuple[int, ...], width: tuple[int, int], lr: tuple[float, float]) -> None:
    """Raises ValueError where there is nothing to draw."""
    if not hidden_layers:
        raise ValueError("`hidden_layers` must name at least one number of layers")
    check_least(0, **{f"hidden_layers.{i}": count for i, count in enumerate(hidden_layers)})
    if not 1 <= width[0] <= width[1]:
        raise ValueError(f"`1 <= least <= most` must hold for `width`, but got {list(width)}")
    if not 0 < lr[0] <= lr[1] < math.inf:
        raise ValueError(f"`0 < least <= most` must hold for `lr`, but got {list(lr)}")
