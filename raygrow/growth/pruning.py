"""Which units of a layer can go, and how the others stand in for them.

Removing a unit is growth backwards: what its removal costs is what adding it again would gain. Each is judged by what is left
of it after the best linear stand-in by the units that stay, h_r ~ B [h_k, 1], weighted by the curvature of the loss where it is
fed: the optimal brain surgeon of Hassibi and Stork (NIPS 1993) with, in place of the inverse Hessian of all weights, the
inverse covariance of the layer's values and the generalised Gauss-Newton curvature at its targets (growth_math 3, SENN). Of
first order nothing is lost: what stays follows the gradient as well as what goes, once dW* has been taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from raygrow.architecture import Architecture, Pooled, Prune
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.meter import Meter
from raygrow.growth.prediction import derivative
from raygrow.growth.statistics import picked
from raygrow.nn import Extension, bias_name, weight_name
from raygrow.nn.maps import map_of

RIDGE = 1e-8
"""Of a regression among units, relative to their mean variance: two alike, or one that is constant, leave the rest solvable."""


@dataclass(frozen=True)
class Pruned:
    """What stays of a layer.

    Attributes:
        extension: the units kept, with the fan-out and the biases of the targets that make up for those that went.
        cost: second-order estimate of the loss this adds before any training, E[(r^T delta)^2] / 2 with curvature samples r;
            with gradients in their place (the empirical Fisher) where there are none.
    """

    extension: Extension
    cost: float


def prune(residuals: Residuals, move: Prune, meter: Meter) -> Pruned:
    """Remove the units that the others stand in for at least cost, one after the other.

    Sizes of a node are prefixes of one order, and what was removed once is not worked out again: a proposal, and then the
    candidate that is built, ask for the same.
    """
    if move.node not in residuals.pruners:
        residuals.pruners[move.node] = _Pruner(residuals, move.node, meter)
    pruner: _Pruner = residuals.pruners[move.node]
    return pruner.without(move.removed)


class _Pruner:
    """A layer, and its units in the order in which they can go."""

    @torch.no_grad()
    def __init__(self, residuals: Residuals, node: str, meter: Meter) -> None:
        self.fold, self.node, self.meter = residuals.fold, node, meter
        fold, arch = self.fold, self.fold.arch
        self.targets = arch.children(node)
        values = fold.values[node]
        rows = picked(values, fold.positions(arch.by_name[node].value_grid)).double()
        centred = rows - rows.mean(0)
        self.values = values.double()
        self.covariance = meter.mm(centred.T, centred) / len(rows)
        self.weights = {target: fold.network.named[weight_name(node, target)].double() for target in self.targets}
        self.curvature = {target: (fold.curvature or fold.gradients)[target].double() for target in self.targets}
        fan_out = [_weighed(self.curvature[t], self.weights[t], _positions(arch, node, t), meter) for t in self.targets]
        self._order = _Order(self.covariance, torch.cat(fan_out, 1), meter)
        self._known: dict[int, Pruned] = {}

    @torch.no_grad()
    def without(self, removed: int) -> Pruned:
        """With so many units fewer."""
        if removed not in self._known:
            self._known[removed] = self._without(self._order.first(removed))
        return self._known[removed]

    def _without(self, gone: list[int]) -> Pruned:
        fold, covariance, meter = self.fold, self.covariance, self.meter
        arch, named = fold.arch, fold.network.named
        grid = arch.by_name[self.node].value_grid
        stays = torch.ones(len(covariance), dtype=torch.bool, device=covariance.device)
        stays[gone] = False
        kept, lost = stays.nonzero().flatten(), (~stays).nonzero().flatten()
        stand_in = meter.solve(covariance[kept][:, kept], covariance[kept][:, lost], _ridge(covariance))
        left = self.values[:, lost] - torch.einsum("nk...,kr->nr...", self.values[:, kept], stand_in)
        meter.products += 2 * self.values[:, 0].numel() * len(kept) * len(lost)
        rewritten: dict[str, Tensor] = {}
        changes: dict[str, Tensor] = {}
        for target in self.targets:
            weight = self.weights[target]
            reading = arch.readings[self.node, target]
            change = map_of(reading, grid).read(left, weight[:, lost])
            meter.products += reading.flops(len(lost), grid, len(weight)) * len(left)
            constant = change.transpose(0, 1).flatten(1).mean(1)
            changes[target] = picked(change, fold.positions(tuple(change.shape[2:]))) - constant
            share = torch.einsum("qr...,kr->qk...", weight[:, lost], stand_in)
            like = named[weight_name(self.node, target)]
            rewritten[weight_name(self.node, target)] = (weight[:, kept] + share).to(like)
            rewritten[bias_name(target)] = named[bias_name(target)] + constant.to(like)
        bend = derivative(changes, self.curvature, fold)
        return Pruned(Extension(kept=kept, rewritten=rewritten), 0.5 * float(bend.square().mean()))


def _ridge(covariance: Tensor) -> float:
    return RIDGE * float(covariance.diagonal().mean())


def _positions(arch: Architecture, source: str, target: str) -> float:
    """Positions of the target; a mean over a cell thins out what is left of a unit, which the positions do not share."""
    reading, grid = arch.readings[source, target], arch.by_name[source].value_grid
    return prod(reading.cells) / prod(grid) if isinstance(reading, Pooled) else prod(arch.by_name[target].grid)


def _weighed(curvature: Tensor, weight: Tensor, positions: float, meter: Meter) -> Tensor:
    """The fan-out of every unit in coordinates in which its squared length is the curvature along it, [units, columns].

    Args:
        curvature: samples at a target, [rows, size]; positions and taps are taken as independent.
        weight: [size, units, *taps].
    """
    lower = meter.factor(meter.mm(curvature.T, curvature) * (positions / len(curvature)), 0.0).lower
    taps = weight.flatten(2) if weight.dim() > 2 else weight.unsqueeze(2)
    return torch.einsum("qut,qc->uct", taps, lower).flatten(1)


class _Order:
    """The units whose removal costs least, one after the other; what remains stands in for what has gone.

    With the inverse covariance P, the variance of a unit given the others is 1 / P_ii and their regression weights are
    -P_ij / P_ii.
    """

    def __init__(self, covariance: Tensor, fan_out: Tensor, meter: Meter) -> None:
        identity = torch.eye(len(covariance)).to(covariance)
        self._inverse = meter.solve(covariance, identity, _ridge(covariance))
        self._fan_out, self._meter = fan_out, meter
        self._gone: list[int] = []

    def first(self, count: int) -> list[int]:
        """The first so many to go."""
        while len(self._gone) < count:
            inverse, fan_out = self._inverse, self._fan_out
            alone = inverse.diagonal().clamp_min(torch.finfo(inverse.dtype).tiny)
            cost = fan_out.square().sum(1) / alone
            cost[self._gone] = torch.inf
            unit = int(cost.argmin())
            self._gone.append(unit)
            regression = -inverse[:, unit] / inverse[unit, unit]
            regression[self._gone] = 0.0
            self._fan_out = fan_out + regression[:, None] * fan_out[unit]
            self._inverse = inverse - torch.outer(inverse[:, unit], inverse[unit]) / inverse[unit, unit]
            self._meter.products += 2 * len(inverse) * (len(inverse) + fan_out.shape[1])
        return self._gone[:count]
