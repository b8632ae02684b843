"""Firefly: split and new units, more than are wanted, of which those that promise most stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from raygrow.architecture import AddBlock, AddEdge, AddNode, Site, Widen
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers.base import (
    AbstractInitializer,
    extension_of,
    fan_in_of,
    fan_out_of,
    hidden_of,
    preactivations_of,
    rewritten_fan_in,
    rewritten_fan_out,
)
from raygrow.growth.initializers.family import ascended, candidates, normal, slope
from raygrow.growth.meter import Meter
from raygrow.nn import Extension
from raygrow.nn.activations import FUNCTIONS

POINTS = (1 / 6, 3 / 6, 5 / 6)
"""Where a gradient is taken between 0 and the whole step: the midpoint rule of three."""

ALIKE = 0.9
"""New units whose values have a larger cosine are one unit found twice."""


@final
@dataclass(frozen=True, kw_only=True)
class Firefly(AbstractInitializer):
    """The best of split and new units by integrated gradient (Wu, Liu, Stone and Liu, NeurIPS 2020).

    Within a neighbourhood of size epsilon of the function,

        f = sum_i omega_i 1/2 [sigma((theta_i + e_i d_i) . x) + sigma((theta_i - e_i d_i) . x)] + sum_j e_j o_j sigma(d_j . x),

    every existing unit i may split and new units j begin, |e| <= epsilon, E[(d . x)^2] = 1, |o_j| = 1. All are grown at first;
    their directions d take some steps of Adam down the loss; o_j = E[G h_j] / |.|, the best there is for its h_j. Those of
    the largest epsilon |s|, with s = -dloss/de averaged from e = 0 to epsilon, stay. The loss is taken to first order in what
    is fed to the targets, through the functional gradients G of the statistics examples: exact for small epsilon. New units
    gain in the first order of epsilon and splits in the second: a split is chosen where no new unit promises much.

    A new unit that repeats a better one, and a split that gains nothing, come last. At a new node every unit is new.
    """

    supports = frozenset({Widen, AddNode, AddEdge, AddBlock})
    line_searched = False
    # A copy computes what its parent does only where nothing normalises it.
    norms = ("none",)

    kind: Literal["firefly"] = "firefly"
    epsilon: float = 0.1
    """Size of a step: length of a new fan-out, rms by which the pre-activations of offspring part. Above 0."""
    pool: int = 4
    """New units tried for each one wanted. At least 1."""
    steps: int = 30
    """Adam steps of the directions. At least 0."""
    rate: float = 0.1
    """Step of Adam, for fan-in weights in units of 1 / rms of what they read. Above 0."""

    def __post_init__(self) -> None:
        if not (self.epsilon > 0 and self.pool >= 1 and self.steps >= 0 and self.rate > 0):
            got = f"{self.epsilon}, {self.pool}, {self.steps} and {self.rate}"
            raise ValueError(f"`epsilon > 0`, `pool >= 1`, `steps >= 0` and `rate > 0` must hold, but got {got}")

    def preserves_function(self, activation: str) -> bool:
        return False

    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        most = max(sizes)
        alpha, omega, gains = self._new(residuals, site, self.pool * most, generator, meter)
        parting, split_gains = self._splits(residuals, site, generator, meter)
        order = torch.cat([split_gains, gains]).argsort(descending=True, stable=True)[:most].tolist()
        return {k: self._built(residuals, site, order[:k], parting, alpha, omega) for k in sizes}

    def _new(
        self, residuals: Residuals, site: Site, count: int, generator: torch.Generator, meter: Meter
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New units: fan-in [count, p2], fan-out of length epsilon [q, count], and what each gains, [count]."""
        assert site.activation is not None
        function, rows = FUNCTIONS[site.activation], residuals.fold.reads(site.sources).matrix
        g = residuals.fold.feeds(site.targets)

        def score(before: Tensor) -> Tensor:
            pulled = meter.mm(g.T, function(before / _rms(before))) / len(g)
            length: Tensor = torch.linalg.vector_norm(pulled, dim=0)
            return length

        alpha = ascended(
            rows, candidates(residuals, site, count, generator, meter), score, self.steps, self.rate, meter
        )
        alpha = alpha / _rms(preactivations_of(residuals, site, alpha, meter))[:, None]
        hidden = hidden_of(residuals, site, alpha, meter)
        pulled = meter.mm(g.T, hidden) / len(g)
        length = pulled.norm(dim=0)
        gains = self.epsilon * length
        unit = hidden / hidden.norm(dim=0).clamp_min(1e-12)
        alike = meter.mm(unit.T, unit).abs() > ALIKE
        chosen: list[int] = []
        for j in gains.argsort(descending=True, stable=True).tolist():
            if bool(alike[j, chosen].any()):
                gains[j] = 0.0
            else:
                chosen.append(j)
        return alpha, self.epsilon * pulled / length.clamp_min(1e-12), gains

    def _splits(
        self, residuals: Residuals, site: Site, generator: torch.Generator, meter: Meter
    ) -> tuple[Tensor, Tensor]:
        """epsilon d of every existing unit, [units, p2], and what its split gains, [units]; -1 where it gains nothing."""
        assert site.activation is not None
        function, rows = FUNCTIONS[site.activation], residuals.fold.reads(site.sources).matrix
        old = fan_in_of(residuals, site)
        if len(old) == 0:
            return old, old[:, 0]
        at = preactivations_of(residuals, site, old, meter)
        wanted = meter.mm(residuals.fold.feeds(site.targets), fan_out_of(residuals, site))

        def parted(before: Tensor) -> Tensor:
            return self.epsilon * before / _rms(before)

        def score(before: Tensor) -> Tensor:
            u = parted(before)
            return (wanted * ((function(at + u) + function(at - u)) / 2 - function(at))).mean(0)

        start = normal(len(old), old.shape[1], generator, old)
        directions = ascended(rows, start, score, self.steps, self.rate, meter)
        before = preactivations_of(residuals, site, directions, meter)
        u, activation = parted(before), site.activation
        integrated = torch.stack([(slope(activation, at + t * u) - slope(activation, at - t * u)) / 2 for t in POINTS])
        gains = (wanted * u * integrated.mean(0)).mean(0)
        return self.epsilon * directions / _rms(before)[:, None], torch.where(gains > 0, gains, -torch.ones_like(gains))

    def _built(
        self, residuals: Residuals, site: Site, chosen: Sequence[int], parting: Tensor, alpha: Tensor, omega: Tensor
    ) -> Extension:
        """The chosen units: numbers below that of the existing units are splits, the others new."""
        old, kept = fan_in_of(residuals, site), fan_out_of(residuals, site)
        units = len(old)
        split = [i for i in chosen if i < units]
        moved = old.clone()
        moved[split] -= parting[split]
        kept[:, split] /= 2
        all_in, all_out = torch.cat([old + parting, alpha]), torch.cat([kept, omega], 1)
        rewritten: dict[str, Tensor] = {}
        if split:
            rewritten = {**rewritten_fan_in(residuals, site, moved), **rewritten_fan_out(residuals, site, kept)}
        picked = list(chosen)
        return extension_of(residuals, site, all_in[picked], all_out[:, picked], rewritten)


def _rms(columns: Tensor) -> Tensor:
    return columns.square().mean(0).sqrt().clamp_min(1e-12)
