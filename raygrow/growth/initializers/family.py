"""What the initializers share: a pool of candidates, an ascent of a score, a forward selection.

Those that read gradients are one family (growth_math 3): they fit units to a target T of every example,

    argmin | (T - sigma(b2 alpha^T) omega^T) M^1/2 |    under a constraint on (alpha, omega),

in a metric M of what is fed, and differ in four choices:

====================  ==========  =================================  ==================  =============================
initializer           target      metric                             constraint          solved by
====================  ==========  =================================  ==================  =============================
tiny                  G_perp      covariance of what is read         none                whitened SVD, then a refit
senn                  G_perp      covariance of values, output       omega = 0           pool, ascent, selection
                                  Fisher E[G G^T]
gradmax               G           identity                           alpha = 0           eigenvectors
firefly               G           identity                           sparse, small       ascent, selection
splitting             G           identity, second order             offspring of one    eigenvectors
                                                                     unit, sum of omega
north                 none        covariance of values or identity   omega = 0           pool, selection or projection
variance_transfer     none        none                               sum of omega = 0    a draw
net2net               none        none                               offspring of one    copies
                                                                     unit, sum of omega
random, orthogonal    none        none                               omega = 0           a draw
====================  ==========  =================================  ==================  =============================
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from raygrow.architecture import Site
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers.base import columns_of, fan_in_of, like_of, preactivations_of, split_fan_in
from raygrow.growth.meter import Meter
from raygrow.nn.activations import FUNCTIONS

HE = 2.0
"""Variance of a fan-in weight times the fan-in that keeps the variance of ReLU units (He et al. 2015)."""

EXHAUSTED = 1e-8
"""What is left of a row after projections is rounding below this share of its squared length."""


def normal(count: int, columns: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal rows [count, columns]; the first rows of a longer draw are those of a shorter one."""
    return torch.randn(count, columns, generator=generator, dtype=torch.float64).to(like)


def drawn(residuals: Residuals, site: Site, count: int, generator: torch.Generator, gain: float = HE) -> Tensor:
    """Normal fan-in of variance ``gain`` / fan-in, the bias 0, [count, p2]."""
    p = columns_of(residuals, site)
    alpha = math.sqrt(gain / max(p - 1, 1)) * normal(count, p, generator, like_of(residuals, site))
    alpha[:, -1] = 0.0
    return alpha


def candidates(residuals: Residuals, site: Site, count: int, generator: torch.Generator, meter: Meter) -> Tensor:
    """Random units whose pre-activations have variance 1 around a mean drawn at random, so that kinks lie in the data."""
    alpha = drawn(residuals, site, count, generator)
    before = preactivations_of(residuals, site, alpha, meter)
    spread = before.std(0, correction=0).clamp_min(1e-12)
    alpha = alpha / spread[:, None]
    alpha[:, -1] = normal(count, 1, generator, alpha)[:, 0] - before.mean(0) / spread
    return alpha


def column_spread(residuals: Residuals, site: Site) -> Tensor | None:
    """Standard deviation of the existing weights of the tensor that each column of a fan-in belongs to, [p2 - 1].

    None where no unit is there yet, or all its weights are 0.
    """
    existing = fan_in_of(residuals, site)
    if len(existing) == 0:
        return None
    blocks, _ = split_fan_in(site, residuals, existing)
    spread = torch.cat([block.std(correction=0).expand(block[0].numel()) for block in blocks.values()])
    return spread if bool((spread > 0).any()) else None


def ascended(
    rows: Tensor, alpha: Tensor, score: Callable[[Tensor], Tensor], steps: int, rate: float, meter: Meter
) -> Tensor:
    """Fan-in rows [k, p2] after some steps of Adam that raise the sum of their scores.

    Columns are taken in units of their rms, so that ``rate`` means the same whatever the scale of a feature.

    Args:
        rows: what the units read, [n, p2].
        score: of pre-activations [n, k], one a unit, differentiable; its products are on the meter.
    """
    scale = rows.square().mean(0).sqrt()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    rows = rows / scale
    with torch.enable_grad():
        moving = (alpha * scale).detach().requires_grad_()
        optimizer = torch.optim.Adam([moving], lr=rate, maximize=True)
        for _ in range(steps):
            before = meter.products
            total = score(meter.mm(rows, moving.T)).sum()
            (moving.grad,) = torch.autograd.grad(total, moving)
            # Each product has one factor that does not move: as many again on the way back.
            meter.products += meter.products - before
            optimizer.step()
    return moving.detach() / scale


def forward_selected(gram: Tensor, cross: Tensor | None, count: int) -> list[int]:
    """Columns chosen one by one, each for what it adds to those before it.

    With ``cross`` a column's worth is what it adds to tr(C A^-1 C^T), the squares that a regression explains; without, its
    squared distance from the span of those chosen. Both are one step of a pivoted Cholesky of A.

    Args:
        gram: A, inner products of the columns, [m, m].
        cross: C, inner products of outputs and columns, [q, m].
        count: at most m.
    """
    left, cross = gram.double().clone(), None if cross is None else cross.double().clone()
    floor = EXHAUSTED * left.diagonal().clone() + torch.finfo(left.dtype).tiny
    free = torch.ones(len(left), dtype=torch.bool, device=left.device)
    chosen: list[int] = []
    for _ in range(count):
        length = left.diagonal()
        worth = length if cross is None else cross.square().sum(0) / length.clamp_min(floor)
        # A column in the span of others adds nothing; such come last, in their order.
        worth = torch.where(length > floor, worth, torch.zeros_like(worth)).masked_fill(~free, -1.0)
        best = int(worth.argmax())
        chosen.append(best)
        free[best] = False
        if length[best] > floor[best]:
            column = left[:, best] / length[best].sqrt()
            if cross is not None:
                cross -= torch.outer(cross[:, best] / left[best, best].sqrt(), column)
            left = left - torch.outer(column, column)
    return chosen


def slope(activation: str, before: Tensor) -> Tensor:
    """sigma' of pre-activations."""
    with torch.enable_grad():
        at = before.detach().requires_grad_()
        return torch.autograd.grad(FUNCTIONS[activation](at).sum(), at)[0]


def bend(activation: str, before: Tensor) -> Tensor:
    """sigma'' of pre-activations; 0 where the activation is piecewise linear."""
    with torch.enable_grad():
        at = before.detach().requires_grad_()
        (first,) = torch.autograd.grad(FUNCTIONS[activation](at).sum(), at, create_graph=True)
        if not first.requires_grad:
            return torch.zeros_like(before)
        return torch.autograd.grad(first.sum(), at)[0]


def straight(activation: str) -> bool:
    """Whether sigma is piecewise linear, so that sigma'' is 0 wherever it exists."""
    return not bool(bend(activation, torch.linspace(-3.0, 3.0, 24, dtype=torch.float64)).any())
