"""Where a network lacks expressive power: best update, projected residual and bottleneck of every node.

Notation and numbers of equations follow growth_math 1.1: A = E[b1 b1^T], M = E[b1 G^T], dW* = A^+ M and
G_perp = G - b1 dW*^T, the part of the functional gradient that no change of the existing weights can follow.
Sources: Verbockhaven et al., "Growing Tiny Networks: Spotting Expressivity Bottlenecks and Fixing Them Optimally" (TMLR
2024); Douka et al. (ESANN 2025) for DAG nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raygrow.growth.meter import Meter
from raygrow.growth.moments import Fold

ROWS_PER_COLUMN = 20
"""Fewer rows than this a column, and the ridge is set to the noise level (growth_math 1.6)."""

UPDATE_RIDGE = 1e-4
REFIT_RIDGE = 1e-6
RANK_TOLERANCE = 1e-6


def ridge_for(trace: float, columns: int, rows: int, relative: float) -> float:
    """Ridge of a regression with a Gram matrix of this trace.

    ``relative`` times the mean eigenvalue where the data allow it; with fewer than 20 rows a column, the sampling noise
    of an eigenvalue: the mean eigenvalue times columns / rows.
    """
    mean = trace / max(columns, 1)
    return mean * (relative if rows >= ROWS_PER_COLUMN * columns else columns / rows)


@dataclass(frozen=True)
class Regression:
    """Ridge regression on fixed rows b1, reusable for many right-hand sides.

    In the primal the Gram matrix is p x p; with fewer rows than columns the n x n dual gives the same coefficients.
    """

    rows: Tensor
    gram: Tensor
    ridge: float
    dual: bool

    @classmethod
    def on(cls, fold: Fold, sources: tuple[str, ...], meter: Meter, relative: float) -> Regression:
        """Regression on what a node with these sources reads."""
        rows = fold.inputs(sources)
        n, p = rows.shape
        ridge = ridge_for(float(rows.square().sum()) / n, p, n, relative)
        if fold.moments.dual and n < p:
            return cls(rows, meter.mm(rows, rows.T) / n, ridge, dual=True)
        if fold.moments.dual:
            return cls(rows, meter.mm(rows.T, rows) / n, ridge, dual=False)
        columns = fold.layout.inputs(sources)
        return cls(rows, fold.moments.second[columns][:, columns], ridge, dual=False)

    def coefficients(self, target: Tensor, meter: Meter) -> Tensor:
        """argmin of E|target - b1 W|^2 + ridge |W|^2 for a target of shape [n, q]; [p, q]."""
        n = len(self.rows)
        if self.dual:
            return meter.mm(self.rows.T, meter.solve(self.gram, target, self.ridge)) / n
        return meter.solve(self.gram, meter.mm(self.rows.T, target) / n, self.ridge)

    def residual(self, target: Tensor, meter: Meter) -> Tensor:
        """What the regression leaves of the target, [n, q]."""
        return target - meter.mm(self.rows, self.coefficients(target, meter))


@dataclass(frozen=True)
class Residuals:
    """G_perp of every node.

    Attributes:
        fold: the statistics it was computed on.
        updates: dW*^T of every node, [inputs + 1, size], the bias last.
        perp: G_perp of all nodes side by side, columns like ``fold.g``, [n, Q].
        bottleneck: E|G_perp|^2 of every node.
        share: E|G_perp|^2 / E|G|^2, in [0, 1].
        regressions: of every node, on its own inputs.
    """

    fold: Fold
    updates: Mapping[str, Tensor]
    perp: Tensor
    bottleneck: Mapping[str, float]
    share: Mapping[str, float]
    regressions: Mapping[str, Regression]

    def perp_of(self, target: str) -> Tensor:
        return self.fold.outputs(self.perp, target)


def best_update(rows: Tensor, g: Tensor, meter: Meter) -> Tensor:
    """dW*^T of one node, [p1, q], the bias last (growth_math 1.1).

    Args:
        rows: what the node reads, the constant last, [n, p1], float64.
        g: its functional gradient, [n, q], float64.
    """
    n, p = rows.shape
    ridge = ridge_for(float(rows.square().sum()) / n, p, n, UPDATE_RIDGE)
    dual = n < p
    gram = (meter.mm(rows, rows.T) if dual else meter.mm(rows.T, rows)) / n
    return Regression(rows, gram, ridge, dual).coefficients(g, meter)


def residuals(fold: Fold, meter: Meter) -> Residuals:
    """Project the functional gradient of every node off what its existing weights can express."""
    updates: dict[str, Tensor] = {}
    parts: list[Tensor] = []
    bottleneck: dict[str, float] = {}
    share: dict[str, float] = {}
    regressions: dict[str, Regression] = {}
    for node in fold.arch.nodes[1:]:
        regression = Regression.on(fold, fold.arch.parents(node.name), meter, UPDATE_RIDGE)
        g = fold.outputs(fold.g, node.name)
        updates[node.name] = regression.coefficients(g, meter)
        perp = g - meter.mm(regression.rows, updates[node.name])
        parts.append(perp)
        total = float(g.square().sum()) / len(g)
        bottleneck[node.name] = float(perp.square().sum()) / len(g)
        share[node.name] = bottleneck[node.name] / total if total > 0 else 0.0
        regressions[node.name] = regression
    return Residuals(fold, updates, torch.cat(parts, 1), bottleneck, share, regressions)


def whitener(fold: Fold, sources: tuple[str, ...], meter: Meter, *, centred: bool = False) -> Tensor:
    """W with E[(b W)^T (b W)] = I on the range of b, the rows that a unit with these sources reads; [p2, rank].

    W = V (e + ridge)^-1/2 from the eigenpairs of S = E[b b^T]; S^-1/2 N and W^T N have the same singular values and right
    vectors. Directions below 1e-6 of the largest eigenvalue are dropped; with fewer rows than columns the eigenpairs
    come from the n x n dual.

    Args:
        centred: whiten the covariance instead. Every direction then reads a centred value: its weight on the constant
            is minus the mean of the rest.
    """
    n = len(fold)
    rows = fold.inputs(sources)
    mean = rows.mean(0)
    if centred:
        rows = rows - mean
    p = rows.shape[1]
    if fold.moments.dual and n < p:
        values, vectors = meter.eigh(meter.mm(rows, rows.T) / n)
    elif fold.moments.dual:
        values, vectors = meter.eigh(meter.mm(rows.T, rows) / n)
    else:
        columns = fold.layout.inputs(sources)
        second = fold.moments.second[columns][:, columns]
        values, vectors = meter.eigh(second - torch.outer(mean, mean) if centred else second)
    ridge = ridge_for(float(values.clamp_min(0).sum()), p, n, RANK_TOLERANCE)
    keep = values > max(RANK_TOLERANCE * float(values[-1]), torch.finfo(values.dtype).tiny)
    scale = (values[keep] + ridge).rsqrt()
    if fold.moments.dual and n < p:
        whitened = meter.mm(rows.T, vectors[:, keep]) * (n * values[keep]).rsqrt() * scale
    else:
        whitened = vectors[:, keep] * scale
    if centred:
        whitened[-1] = -(mean[:-1] @ whitened[:-1])
    return whitened
