"""NORTH*: units that make what a layer computes less redundant."""

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
    fan_in_of,
    hidden_of,
    preactivations_of,
    prefixes,
)
from raygrow.growth.initializers.family import EXHAUSTED, drawn, forward_selected
from raygrow.growth.meter import Meter
from raygrow.nn import Extension

SPENT = 1e-6
"""A row of which projections leave less than this share of its squared length had no direction of its own."""


@final
@dataclass(frozen=True, kw_only=True)
class North(AbstractInitializer):
    """Fan-in orthogonal to that of the units that are there, fan-out 0 (Maile et al., AutoML 2022).

    It looks at what units compute and not at the loss. Four ways, named as in the paper:

    - ``select``: of a pool of He-normal units those that raise the effective dimension most, the number of singular values of
      H / sqrt(n) above a threshold for values H [n, units]: one by one the unit whose values lie farthest from the span of
      the values that are there, which no threshold has to be set for;
    - ``pre``: random fan-in whose pre-activations are orthogonal, E[z z'] = 0, to those of existing units and each other,
      with E[z^2] = 1;
    - ``weight``: random orthogonal fan-in in the complement of the existing fan-in rows, with their mean length, no bias;
    - ``random``: He-normal.

    Where the units that are there span everything, ``pre`` and ``weight`` leave nothing, and what was drawn stays.
    """

    supports = frozenset({Widen, AddNode, AddEdge, AddBlock})
    line_searched = False
    differentiates = False

    kind: Literal["north"] = "north"
    mode: Literal["select", "pre", "weight", "random"] = "select"
    """How the fan-in is chosen."""
    pool: int = 8
    """Random units drawn for each one wanted (``select``). At least 1."""

    def __post_init__(self) -> None:
        if not self.pool >= 1:
            raise ValueError(f"`pool >= 1` must hold, but got {self.pool}")

    def preserves_function(self, activation: str) -> bool:
        return True

    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        most = max(sizes)
        if self.mode == "select":
            pool = drawn(residuals, site, self.pool * most, generator)
            return prefixes(residuals, site, sizes, pool[self._farthest(residuals, site, pool, most, meter)])
        alpha, existing = drawn(residuals, site, most, generator), fan_in_of(residuals, site)
        if self.mode == "pre":
            rows = torch.cat([existing, alpha])
            before = preactivations_of(residuals, site, rows, meter)
            alpha = len(before) ** 0.5 * _orthonormal(rows, before.T, most, meter)
        elif self.mode == "weight":
            rows = torch.cat([existing, alpha])
            rows[:, -1] = 0.0
            lengths = rows.norm(dim=1)
            length = lengths[: len(existing)].mean() if len(existing) else lengths.mean()
            alpha = length * _orthonormal(rows, rows, most, meter)
        return prefixes(residuals, site, sizes, alpha)

    def _farthest(self, residuals: Residuals, site: Site, pool: Tensor, count: int, meter: Meter) -> list[int]:
        existing = fan_in_of(residuals, site)
        hidden = hidden_of(residuals, site, torch.cat([existing, pool]), meter)
        gram = meter.mm(hidden.T, hidden).double() / len(hidden)
        old = len(existing)
        left = gram[old:, old:]
        if old:
            ridge = EXHAUSTED * float(gram.diagonal()[:old].mean())
            left = left - meter.mm(gram[old:, :old], meter.solve(gram[:old, :old], gram[:old, old:], ridge))
        return forward_selected(left, None, count)


def _orthonormal(rows: Tensor, images: Tensor, new: int, meter: Meter) -> Tensor:
    """The last ``new`` fan-in rows, mixed so that their images are orthonormal, and orthogonal to the images before them.

    Gram-Schmidt, by a Cholesky factor of the Gram matrix of the images. A row of which nothing is left only gets its length.

    Args:
        rows: [m, p2].
        images: linear in the rows, [m, d].
    """
    unit = images.double()
    length = unit.norm(dim=1).clamp_min(1e-12)[:, None]
    unit = unit / length
    factor = meter.factor(meter.mm(unit, unit.T), EXHAUSTED)
    scaled = rows.double() / length
    mixed = meter.apply_root(factor, scaled)
    left = factor.lower.diagonal().square() > SPENT
    return torch.where(left[:, None], mixed, scaled)[len(rows) - new :].to(rows)
