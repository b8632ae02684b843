"""Where a network lacks expressive power: best update, projected residual and bottleneck of every node.

Notation and numbers of equations follow growth_math 1.1: A = E[b1 b1^T], M = E[b1 G^T], dW* = A^+ M and
G_perp = G - b1 dW*^T, the part of the functional gradient that no change of the existing weights can follow.
Sources: Verbockhaven et al., "Growing Tiny Networks: Spotting Expressivity Bottlenecks and Fixing Them Optimally" (TMLR
2024); Douka et al. (ESANN 2025) for DAG nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raygrow.growth.meter import Meter
from raygrow.growth.rows import WHITENING_RIDGE, Rows, cut, side_by_side
from raygrow.growth.statistics import Fold
from raygrow.nn import Network

SUBSPACE_STEPS = 2
"""Block power iterations where an eigenproblem is too large to be worth solving whole: growth needs a few directions."""

SPARE = 8
"""Columns of such a block beyond those wanted."""

FORMED = 128
"""Up to this many outputs G_perp and the matrix of an eigenproblem are formed; beyond, a block goes through the projection."""


class Residuals:
    """G_perp of every node that is asked about; nothing is computed twice, and nothing that is not asked for.

    Attributes:
        fold: the statistics it is computed on.
        meter: takes the bill.
        pruners: what ``raygrow.growth.pruning`` has worked out, by node.
    """

    def __init__(self, fold: Fold, meter: Meter) -> None:
        self.fold = fold
        self.meter = meter
        self._perp: dict[str, Tensor] = {}
        self._maps: dict[str, Tensor] = {}
        self._gradient_maps: dict[str, Tensor] = {}
        self.pruners: dict[str, Any] = {}

    def regression(self, target: str) -> Rows:
        """What the target reads already."""
        return self.fold.into(target)

    def perp_of(self, target: str) -> Tensor:
        """G_perp, one row a position looked at, [rows, size]."""
        if target not in self._perp:
            self._perp[target] = self.regression(target).free(self.fold.gradients[target], self.meter)
        return self._perp[target]

    def perp_map(self, target: str) -> Tensor:
        """G_perp at every position, [n, size, *grid], by the regression on the positions looked at."""
        fold = self.fold
        if not fold.arch.by_name[target].grid:
            return self.perp_of(target)
        if target not in self._maps:
            step = self.regression(target).coefficients(fold.gradients[target], self.meter)
            self._maps[target] = self.gradient_map(target) - added(fold.network, fold.values, target, step, self.meter)
        return self._maps[target]

    def gradient_map(self, target: str) -> Tensor:
        """G at every position, [n, size, *grid]."""
        if target not in self._gradient_maps:
            self._gradient_maps[target] = self.fold.gradient_map(target)
        return self._gradient_maps[target]

    def perp(self, targets: Sequence[str]) -> Tensor:
        """G_perp of several targets side by side, [n, q]."""
        return side_by_side([self.perp_of(target) for target in targets])

    def cross(self, left: Tensor, target: str) -> Tensor:
        """E[left G_perp^T] for rows of shape [n, m]; [m, size].

        The projection is symmetric, so the narrower of the two sides is projected.
        """
        g = self.fold.gradients[target]
        if target in self._perp or g.shape[1] <= left.shape[1]:
            return self.meter.mm(left.T, self.perp_of(target)) / g.shape[0]
        return self.meter.mm(self.regression(target).free(left, self.meter).T, g) / g.shape[0]

    def along(self, directions: Tensor, targets: Sequence[str]) -> Tensor:
        """G_perp v for the columns v of [q, m], [n, m]; without G_perp itself where it was not needed yet."""
        total: Tensor | None = None
        for target, part in zip(targets, cut(directions, self._sizes(targets), 0), strict=True):
            if target in self._perp:
                added = self.meter.mm(self._perp[target], part)
            else:
                g = self.meter.mm(self.fold.gradients[target], part)
                added = self.regression(target).free(g, self.meter)
            total = added if total is None else total + added
        assert total is not None
        return total

    def back(self, rows: Tensor, targets: Sequence[str]) -> Tensor:
        """E[G_perp rows^T] for rows of shape [n, m], [q, m]."""
        return torch.cat([self.cross(rows, target).T for target in targets])

    def strongest(self, targets: Sequence[str], count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rms of G_perp along the output directions in which it is largest, [m], and G_perp along them, [n, m]."""
        q = sum(self._sizes(targets))
        if q <= FORMED:
            perp = self.perp(targets)
            found = eigenpairs(self.meter.mm(perp.T, perp) / len(perp), count, generator, self.meter)
        else:

            def power(block: Tensor) -> Tensor:
                along = self.along(block, targets)
                # A projection applied twice is applied once.
                sides = [self._perp.get(target, self.fold.gradients[target]) for target in targets]
                return torch.cat([self.meter.mm(side.T, along) for side in sides]) / len(along)

            like = self.fold.gradients[targets[0]]
            found = leading_eigenpairs(power, q, count, like, generator, self.meter)
        return found[0].clamp_min(0).sqrt(), self.along(found[1], targets)

    def _sizes(self, targets: Sequence[str]) -> list[int]:
        return [self.fold.gradients[target].shape[1] for target in targets]

    def bottleneck(self, target: str) -> float:
        """E|G_perp|^2."""
        return float(self.perp_of(target).square().sum()) / len(self.fold)

    def share(self, target: str) -> float:
        """E|G_perp|^2 / E|G|^2, in [0, 1]."""
        total = float(self.fold.gradients[target].square().sum()) / len(self.fold)
        return self.bottleneck(target) / total if total > 0 else 0.0


def added(network: Network, values: Mapping[str, Tensor], target: str, step: Tensor, meter: Meter) -> Tensor:
    """What a change of the weights into a node adds to its pre-activation, [n, size, *grid].

    Args:
        values: of its parents, [n, size, *value grid].
        step: of the matrix that acts on its rows, the bias last, [columns, size].
    """
    (reads,) = (node.reads for node in network.steps if node.name == target)
    weighted = [read for read in reads if read.weight is not None]
    total: Tensor | None = None
    for read, block in zip(weighted, split_step(network, target, step), strict=True):
        value = values[read.source]
        meter.products += read.flops * len(value)
        part = read.map.read(value, block.to(value), step[-1].to(value) if total is None else None)
        total = part if total is None else total + part
    # A node that reads nothing by a weight has its bias alone.
    return step[-1].view(-1, *(1 for _ in network.arch.by_name[target].grid)) if total is None else total


def split_step(network: Network, target: str, step: Tensor) -> list[Tensor]:
    """A change of the matrix that acts on a node's rows as one weight an edge, in the order of its parents."""
    (reads,) = (node.reads for node in network.steps if node.name == target)
    weights = [read.weight for read in reads if read.weight is not None]
    blocks = torch.split(step[:-1], [weight[0].numel() for weight in weights])
    return [block.T.reshape(weight.shape) for block, weight in zip(blocks, weights, strict=True)]


@dataclass(frozen=True)
class Leading:
    """The largest singular triples of S^-1/2 N, with N = E[b2 G_perp^T] and S = E[b2 b2^T] (growth_math 1.2).

    Attributes:
        values: lambda, descending, [m].
        right: v, orthonormal columns, [q, m].
        read: S^-1 N v = lambda S^-1/2 u, the fan-in of a linear unit that follows v up to its length, [p2, m].
    """

    values: Tensor
    right: Tensor
    read: Tensor


def leading(
    residuals: Residuals,
    sources: Sequence[str],
    targets: Sequence[str],
    count: int,
    generator: torch.Generator,
    meter: Meter,
) -> Leading:
    """The ``count`` largest triples at a site, or as many as there are.

    S^-1/2 N and L^-1 N with S = L L^T have the same singular values and right vectors: the eigenpairs of N^T S^-1 N, [q, q].
    Where q is large that matrix is not formed, and where p2 is large too neither are N and G_perp: a block of directions goes
    through them.
    """
    rows = residuals.fold.reads(sources)
    # Whitening sees no labels, so that halves may share it.
    metric = rows if rows.whole is None or rows.whole[0].dual else rows.whole[0]
    factor = metric.factor(WHITENING_RIDGE, meter)
    n, q = rows.n, sum(residuals.fold.gradients[target].shape[1] for target in targets)
    count = min(count, n, rows.p)

    def read(along: Tensor) -> Tensor:
        """S^-1 E[b2 along]; with fewer rows than columns b2^T (K + ridge)^-1 along / n, with the n x n dual K."""
        if metric.dual:
            return meter.mm(rows.matrix.T, meter.apply_inverse(factor, along)) / n
        return meter.apply_inverse(factor, meter.mm(rows.matrix.T, along) / n)

    def smooth(along: Tensor) -> Tensor:
        """b2 S^-1 E[b2 along]."""
        if metric.dual:
            return along - factor.ridge * meter.apply_inverse(factor, along)
        return meter.mm(rows.matrix, read(along))

    if q > FORMED and (metric.dual or rows.p > FORMED):

        def power(block: Tensor) -> Tensor:
            return residuals.back(smooth(residuals.along(block, targets)), targets)

        values, right = leading_eigenpairs(power, q, count, rows.matrix, generator, meter)
        return Leading(values.clamp_min(0).sqrt(), right, read(residuals.along(right, targets)))
    if metric.dual:
        perp = residuals.perp(targets)
        values, right = eigenpairs(meter.mm(perp.T, smooth(perp)) / n, count, generator, meter)
        return Leading(values.clamp_min(0).sqrt(), right, read(meter.mm(perp, right)))
    cross = side_by_side([residuals.cross(rows.matrix, target) for target in targets])
    whitened = meter.apply_root(factor, cross)
    if q > FORMED:

        def squared(block: Tensor) -> Tensor:
            return meter.mm(whitened.T, meter.mm(whitened, block))

        values, right = leading_eigenpairs(squared, q, count, rows.matrix, generator, meter)
    else:
        values, right = eigenpairs(meter.mm(whitened.T, whitened), count, generator, meter)
    return Leading(
        values.clamp_min(0).sqrt(), right, meter.apply_root(factor, meter.mm(whitened, right), transposed=True)
    )


def eigenpairs(matrix: Tensor, count: int, generator: torch.Generator, meter: Meter) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues, descending, and their eigenvectors as columns, of a symmetric matrix."""
    size = len(matrix)
    if size > 2 * (count + SPARE):
        return leading_eigenpairs(lambda block: meter.mm(matrix, block), size, count, matrix, generator, meter)
    return _dense_eigenpairs(matrix, count, meter)


def _dense_eigenpairs(matrix: Tensor, count: int, meter: Meter) -> tuple[Tensor, Tensor]:
    values, vectors = meter.eigh(matrix)
    return values.flip(0)[:count], vectors.flip(1)[:, :count]


def leading_eigenpairs(
    power: Callable[[Tensor], Tensor], size: int, count: int, like: Tensor, generator: torch.Generator, meter: Meter
) -> tuple[Tensor, Tensor]:
    """The same of a matrix that is known by its products with blocks of columns.

    Block power iteration with a Rayleigh-Ritz step (Halko, Martinsson and Tropp, SIAM Review 2011, section 4.5).
    """
    block = meter.basis(torch.randn(size, count + SPARE, generator=generator, dtype=torch.float64).to(like))
    for _ in range(SUBSPACE_STEPS):
        block = meter.basis(power(block))
    values, inner = _dense_eigenpairs(meter.mm(block.T, power(block)), count, meter)
    return values, meter.mm(block, inner)
