"""Natural expansion: units whose values say most about the natural gradient that existing weights cannot follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from raygrow.architecture import AddBlock, AddEdge, AddNode, Site, Widen
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers.base import AbstractInitializer, hidden_of, prefixes
from raygrow.growth.initializers.family import ascended, candidates, forward_selected
from raygrow.growth.meter import Meter
from raygrow.nn import Extension
from raygrow.nn.activations import FUNCTIONS

OUTPUT_RIDGE = 1e-3
"""Ridge of the output Fisher, relative to its mean eigenvalue (growth_math 1.5)."""


@final
@dataclass(frozen=True, kw_only=True)
class Senn(AbstractInitializer):
    """Units of the largest natural expansion score, fan-out 0 (Mitchell et al., "Self-Expanding Neural Networks", 2023).

    With K-FAC's output factor S_o = E[G G^T], values a_p of proposed units, C = E[G_perp a_p^T] and A_p = E[a_p a_p^T],

        delta eta' = tr(S_o^-1 C A_p^-1 C^T)

    is a lower bound on what they add to the natural gradient's squared length eta = g^T F^-1 g, about twice the decrease of
    the loss that it promises. Random units climb their own score for some steps, then the units wanted are chosen from the
    pool one by one, each for what it adds to the score of those before it.
    """

    supports = frozenset({Widen, AddNode, AddEdge, AddBlock})
    line_searched = False

    kind: Literal["senn"] = "senn"
    pool: int = 4
    """Proposals for each unit wanted. At least 1."""
    steps: int = 20
    """Adam steps that each proposal climbs. At least 0."""
    rate: float = 0.1
    """Step of Adam, for fan-in weights in units of 1 / rms of what they read. Above 0."""

    def __post_init__(self) -> None:
        if not (self.pool >= 1 and self.steps >= 0 and self.rate > 0):
            got = f"{self.pool}, {self.steps} and {self.rate}"
            raise ValueError(f"`pool >= 1`, `steps >= 0` and `rate > 0` must hold, but got {got}")

    def preserves_function(self, activation: str) -> bool:
        return True

    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        assert site.activation is not None
        function = FUNCTIONS[site.activation]
        target = natural_target(residuals, site, meter)

        def score(before: Tensor) -> Tensor:
            return expansion_scores(target, function(before), meter)

        pool = candidates(residuals, site, self.pool * max(sizes), generator, meter)
        pool = ascended(residuals.fold.reads(site.sources).matrix, pool, score, self.steps, self.rate, meter)
        hidden = hidden_of(residuals, site, pool, meter)
        gram, cross = meter.mm(hidden.T, hidden) / len(hidden), meter.mm(target.T, hidden) / len(hidden)
        return prefixes(residuals, site, sizes, pool[forward_selected(gram, cross, max(sizes))])


def natural_target(residuals: Residuals, site: Site, meter: Meter) -> Tensor:
    """G_perp L^-T with S_o + ridge = L L^T, [n, q]: products with it are in the output metric."""
    g = residuals.fold.feeds(site.targets)
    fisher = meter.mm(g.T, g).double() / len(g)
    ridge = OUTPUT_RIDGE * float(fisher.diagonal().mean())
    return meter.apply_root(meter.factor(fisher, ridge), residuals.perp(site.targets).T).T


def expansion_scores(target: Tensor, hidden: Tensor, meter: Meter) -> Tensor:
    """delta eta' of every unit alone, [k], for a natural target [n, q] and values [n, k]."""
    cross = meter.mm(target.T, hidden) / len(hidden)
    return cross.square().sum(0) / hidden.square().mean(0).clamp_min(1e-12)
