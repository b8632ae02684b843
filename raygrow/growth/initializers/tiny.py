"""TINY: units along the expressivity bottleneck."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from raygrow.architecture import ACTIVATIONS, AddEdge, AddNode, Site, Widen
from raygrow.growth.bottleneck import REFIT_RIDGE, Residuals, ridge_for, whitener
from raygrow.growth.initializers.base import AbstractInitializer, split_fan_in
from raygrow.growth.meter import Meter
from raygrow.nn import Extension
from raygrow.nn.activations import FUNCTIONS

CURVED_OUTPUTS = 16
"""At most this many output directions are searched for curvature."""

POWER_STEPS = 2
"""Block power iterations: the screen needs the subspace, not the last digit of an eigenvector."""


@final
@dataclass(frozen=True, kw_only=True)
class Tiny(AbstractInitializer):
    """Whitened SVD of the projected residual, refit on the true activation (Verbockhaven et al., TMLR 2024).

    Directions, in this order, until there are enough units:

    1. left singular vectors of S^-1/2 E[b2^T G_perp] above the noise floor sqrt(p2) + sqrt(q) (growth_math 1.2, 1.6, 4b),
       each with the sign that lowers the loss more (1.3);
    2. curved directions: eigenvectors of E[(G_perp v) z z^T] in whitened, centred z, above the noise edge. Where the new
       unit reads what its target reads already (a node beside an edge, a wider layer under a skip), E[b2^T G_perp] is 0 by
       construction and the linearised theory sees nothing; the first term that a unit can still follow is quadratic.
       The matrix is Li's principal Hessian direction (JASA 1992) of the projected residual;
    3. random whitened directions.

    Fan-in is scaled to unit-rms pre-activations; fan-out is the omega block of the ridge refit of G_perp on [b1, h] (1.4);
    its amplitude comes from the line search. A new edge gets the same refit with h the values it reads (2.2).
    """

    supports = frozenset({Widen, AddNode, AddEdge})
    line_searched = True

    kind: Literal["tiny"] = "tiny"
    curved: bool = True
    """Search curved directions where the linear ones end; false leaves random directions there."""

    def preserves_function(self, activation: str) -> bool:
        return False

    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        fold = residuals.fold
        rows = fold.inputs(site.sources)
        if site.activation is None:
            (target,) = site.targets
            refit = _Refit.of(residuals, site, rows[:, :-1], meter)
            return {0: Extension(edge=refit.fan_out(rows.shape[1] - 1, meter)[target])}
        alpha = self._directions(residuals, site, max(sizes), generator, meter)
        before = meter.mm(rows, alpha.T)
        alpha = alpha / before.square().mean(0).sqrt().clamp_min(1e-12)[:, None]
        hidden = FUNCTIONS[site.activation](meter.mm(rows, alpha.T))
        refit = _Refit.of(residuals, site, hidden, meter)
        fan_in, bias = split_fan_in(site, residuals, alpha)
        return {
            k: Extension({source: block[:k] for source, block in fan_in.items()}, bias[:k], refit.fan_out(k, meter))
            for k in sizes
        }

    def _directions(
        self, residuals: Residuals, site: Site, most: int, generator: torch.Generator, meter: Meter
    ) -> Tensor:
        """Fan-in rows, best first, the bias last; [most, p2]."""
        assert site.activation is not None
        fold = residuals.fold
        rows = fold.inputs(site.sources)
        perp = torch.cat([residuals.perp_of(t) for t in site.targets], 1)
        alpha = _linear_directions(residuals, site, rows, perp, meter)[:most]
        if len(alpha) < most:
            white = whitener(fold, site.sources, meter, centred=True)
            if self.curved and white.shape[1]:
                wanted = most - len(alpha)
                curved = _curved_directions(meter.mm(rows, white), perp, wanted, generator, meter)
                alpha = torch.cat([alpha, _kinked(meter.mm(curved, white.T), site.activation)])[:most]
        if len(alpha) < most:
            draw = torch.randn(most - len(alpha), white.shape[1], generator=generator, dtype=torch.float64)
            draw = draw.to(white) / draw.norm(dim=1, keepdim=True).clamp_min(1e-12).to(white)
            extra = meter.mm(draw, white.T)
            # Kinks spread over the data: units through the mean alone could only build cones.
            extra[:, -1] += torch.randn(len(extra), generator=generator, dtype=torch.float64).to(extra)
            alpha = torch.cat([alpha, extra])
        return _signed(alpha, rows, perp, site.activation, meter)


def _linear_directions(residuals: Residuals, site: Site, rows: Tensor, perp: Tensor, meter: Meter) -> Tensor:
    """Directions of the linearised theory above the noise floor, [m, p2] (growth_math 1.2)."""
    n, q = perp.shape
    scale = perp.square().mean(0).sqrt()
    if not float(scale.max()) > 0:
        return rows.new_zeros(0, rows.shape[1])
    white = whitener(residuals.fold, site.sources, meter)
    z = meter.mm(white.T, meter.mm(rows.T, perp) / n)
    # Standardised by the rms of each output, the entries of sqrt(n) Z have unit variance without signal.
    noise = meter.svdvals(math.sqrt(n) * z / scale.clamp_min(1e-12 * float(scale.max())))
    floor = math.sqrt(white.shape[1]) + math.sqrt(q)
    m = int((noise > floor).sum())
    left, values, _ = meter.svd(z)
    return (meter.mm(white, left[:, :m]) * values[:m].sqrt()).T


def _curved_directions(z: Tensor, perp: Tensor, wanted: int, generator: torch.Generator, meter: Meter) -> Tensor:
    """Whitened directions along which the residual is most quadratic, best first, [m, rank].

    For each output direction v the symmetric matrix H_v = E[(G_perp v) (z z^T - I)]; its extreme eigenpairs by block power
    iteration, exact when the block spans the space. Kept: eigenvalues beyond the edge 2 sqrt(rank/n) sd(G_perp v) that pure
    noise reaches, and directions that differ from those already taken.
    """
    n, rank = z.shape
    values, vectors = meter.eigh(meter.mm(perp.T, perp) / n)
    top = vectors.flip(1)[:, :CURVED_OUTPUTS]
    outputs = meter.mm(perp, top)
    spread = values.flip(0)[:CURVED_OUTPUTS].clamp_min(0).sqrt()
    block = min(rank, 2 * math.ceil(wanted / len(spread)) + 4)
    start = torch.randn(rank, block, generator=generator, dtype=torch.float64).to(z)
    found: list[tuple[float, Tensor]] = []
    for column, sd in zip(outputs.T, spread.tolist(), strict=True):
        if not sd > 1e-6 * float(spread[0]):
            continue
        weighted = z * (column - column.mean())[:, None]
        basis = meter.basis(start)
        for _ in range(0 if block == rank else POWER_STEPS):
            basis = meter.basis(meter.mm(weighted.T, meter.mm(z, basis)) / n)
        small = meter.mm(basis.T, meter.mm(weighted.T, meter.mm(z, basis))) / n
        curvature, inner = meter.eigh((small + small.T) / 2)
        edge = 2 * math.sqrt(rank / n) * sd
        found += [
            (abs(e), meter.mm(basis, inner[:, [j]])[:, 0]) for j, e in enumerate(curvature.tolist()) if abs(e) > edge
        ]
    chosen: list[Tensor] = []
    for _, direction in sorted(found, key=lambda pair: -pair[0]):
        if len(chosen) < wanted and all(abs(float(direction @ other)) < 0.9 for other in chosen):
            chosen.append(direction)
    return torch.stack(chosen) if chosen else z.new_zeros(0, rank)


def _kinked(alpha: Tensor, activation: str) -> Tensor:
    """Move an odd activation off its centre, where it has no curvature; others bend at the mean already."""
    if ACTIVATIONS[activation].odd:
        alpha = alpha.clone()
        alpha[:, -1] += 1.0
    return alpha


def _signed(alpha: Tensor, rows: Tensor, perp: Tensor, activation: str, meter: Meter) -> Tensor:
    """Flip each unit to the sign under which it follows the residual more closely (growth_math 1.3)."""
    if ACTIVATIONS[activation].odd:
        return alpha
    before = meter.mm(rows, alpha.T)
    best: list[Tensor] = []
    for sign in (1.0, -1.0):
        hidden = FUNCTIONS[activation](sign * before)
        hidden = hidden - hidden.mean(0)
        size = hidden.square().sum(0).clamp_min(1e-12)
        best.append(meter.mm(hidden.T, perp).square().sum(1) / size)
    return torch.where((best[1] > best[0])[:, None], -alpha, alpha)


@dataclass(frozen=True)
class _Refit:
    """Ridge refit of G_perp on [b1, h], reduced to h: b1 is projected out of h once, for every number of units."""

    columns: Mapping[str, Tensor]
    cross: Mapping[str, Tensor]
    rows: int

    @classmethod
    def of(cls, residuals: Residuals, site: Site, hidden: Tensor, meter: Meter) -> _Refit:
        columns: dict[str, Tensor] = {}
        cross: dict[str, Tensor] = {}
        for target in site.targets:
            free = residuals.regressions[target].residual(hidden, meter)
            columns[target] = meter.mm(free.T, free) / len(hidden)
            cross[target] = meter.mm(free.T, residuals.perp_of(target)) / len(hidden)
        return cls(columns, cross, len(hidden))

    def fan_out(self, k: int, meter: Meter) -> dict[str, Tensor]:
        """omega of the first k columns, by target, each [target size, k]."""
        result: dict[str, Tensor] = {}
        for target, gram in self.columns.items():
            ridge = ridge_for(float(gram[:k, :k].diagonal().sum()), k, self.rows, REFIT_RIDGE)
            result[target] = meter.solve(gram[:k, :k], self.cross[target][:k], ridge).T
        return result
