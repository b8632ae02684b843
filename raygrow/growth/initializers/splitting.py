"""Splitting: a unit becomes two offspring that part along the direction in which the loss curves down most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from raygrow.architecture import AddBlock, AddEdge, AddNode, Site, Widen
from raygrow.errors import MoveError
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.curvature import extreme_eigenpairs
from raygrow.growth.initializers.base import (
    AbstractInitializer,
    extension_of,
    fan_in_of,
    fan_out_of,
    preactivations_of,
    rewritten_fan_in,
    rewritten_fan_out,
)
from raygrow.growth.initializers.family import bend, drawn, straight
from raygrow.growth.meter import Meter
from raygrow.nn import Extension

FORMED = 128
"""Up to this many columns the splitting matrices are formed."""

EXTREMES, STEPS = 6, 4
"""Beyond, eigenpairs searched for in each unit (the lowest is wanted, the largest come) and steps of block iteration."""


@final
@dataclass(frozen=True, kw_only=True)
class Splitting(AbstractInitializer):
    """Offspring theta +- step v of half the fan-out each (splitting steepest descent: Liu, Wu and Wang, NeurIPS 2019).

    The loss changes by step^2 / 2 v^T S v + O(step^4) with the splitting matrix of a unit with fan-in theta and fan-out omega

        S = E[g sigma''(theta . x) x x^T],   g = dloss/dh = -G . omega,

    least along the eigenvector v of its lowest eigenvalue. Units of a negative one are split, each once, lowest first. One
    offspring takes the old unit's place, the other is new. sigma'' is 0 for piecewise linear activations, which are refused.
    At a new node, and beyond one split of every such unit, units begin as ``random`` does, with fan-out 0.
    """

    supports = frozenset({Widen, AddNode, AddEdge, AddBlock})
    line_searched = False
    # A copy computes what its parent does only where nothing normalises it.
    norms = ("none",)

    kind: Literal["splitting"] = "splitting"
    step: float = 0.5
    """Length of the step that parts the offspring, in the units of weights. Above 0. By trial: 0.1 leaves them nearly one
    unit for long, 1 often raises the loss at birth."""

    def __post_init__(self) -> None:
        if not self.step > 0:
            raise ValueError(f"`step > 0` must hold, but got {self.step}")

    def preserves_function(self, activation: str) -> bool:
        return False

    def supports_activation(self, activation: str) -> bool:
        return not straight(activation)

    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        assert site.activation is not None
        if not self.supports_activation(site.activation):
            raise MoveError(f"{site}: splitting needs a curved activation; {site.activation!r} is piecewise linear")
        most, old, omega = max(sizes), fan_in_of(residuals, site), fan_out_of(residuals, site)
        units = len(old)
        split = torch.zeros(0, dtype=torch.long, device=old.device)
        offspring = old
        if units:
            values, directions = lowest_splits(residuals, site, generator, meter)
            order = values.argsort(stable=True)
            split = order[values[order] < 0][:most]
            offspring = self.step * directions
        more = drawn(residuals, site, most - len(split), generator)
        result: dict[int, Extension] = {}
        for k in sizes:
            of, fresh = split[:k], more[: max(k - len(split), 0)]
            alpha = torch.cat([(old + offspring)[of], fresh])
            moved, kept = old.clone(), omega.clone()
            moved[of] -= offspring[of]
            kept[:, of] /= 2
            given = torch.cat([kept[:, of], omega.new_zeros(len(omega), len(fresh))], 1)
            rewritten = {}
            if len(of):
                rewritten = {**rewritten_fan_in(residuals, site, moved), **rewritten_fan_out(residuals, site, kept)}
            result[k] = extension_of(residuals, site, alpha, given, rewritten)
        return result


def lowest_splits(residuals: Residuals, site: Site, generator: torch.Generator, meter: Meter) -> tuple[Tensor, Tensor]:
    """Lowest eigenvalue of every unit's splitting matrix, [units], and its unit eigenvector, [units, p2]."""
    assert site.activation is not None
    rows = residuals.fold.reads(site.sources).matrix
    before = preactivations_of(residuals, site, fan_in_of(residuals, site), meter)
    ascent = -meter.mm(residuals.fold.feeds(site.targets), fan_out_of(residuals, site))
    weights = ascent * bend(site.activation, before)
    values, vectors = extreme_eigenpairs(rows, weights, EXTREMES, generator, meter, whole=FORMED, steps=STEPS)
    return values[:, 0], vectors[:, :, 0]
