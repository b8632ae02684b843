"""TINY: units along the expressivity bottleneck."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from raygrow.architecture import ACTIVATIONS, AddBlock, AddEdge, AddNode, Site, Widen
from raygrow.growth.bottleneck import Residuals, leading
from raygrow.growth.curvature import CURVED_OUTPUTS, curved_directions, worth_searching
from raygrow.growth.initializers.base import AbstractInitializer, split_fan_in
from raygrow.growth.meter import Meter
from raygrow.growth.refit import Refit
from raygrow.growth.rows import side_by_side
from raygrow.nn import Extension
from raygrow.nn.activations import FUNCTIONS

INFLATION_ROWS = 2048

FAINT = 0.5
"""A direction of less than this share of what pure noise reaches was projected out: what is left of it says nothing."""


@final
@dataclass(frozen=True, kw_only=True)
class Tiny(AbstractInitializer):
    """Whitened SVD of the projected residual, refit on the true activation (Verbockhaven et al., TMLR 2024).

    Directions, until there are enough units:

    1. left singular vectors of S^-1/2 E[b2^T G_perp] above the noise floor sqrt(p2) + sqrt(q) (growth_math 1.2, 1.6, 4b),
       each with the sign that lowers the loss more (1.3); then those below it, which are no worse than random ones;
    2. where every target reads already what the new units read (a node beside an edge, a wider layer under a skip), curved
       directions instead: eigenvectors of E[(G_perp v) z z^T] in whitened, centred z, above the noise edge. There
       E[b2^T G_perp] is 0 by construction and the linearised theory sees nothing; the first term that a unit can still
       follow is quadratic. The matrix is Li's principal Hessian direction (JASA 1992) of the projected residual;
    3. random whitened directions.

    Fan-in is scaled to unit-rms pre-activations; fan-out is the omega block of the ridge refit of G_perp on [b1, h] (1.4);
    its amplitude comes from the line search. A new edge gets the same refit with h the values it reads (2.2).
    """

    supports = frozenset({Widen, AddNode, AddEdge, AddBlock})
    whitens = True
    line_searched = True
    differentiates = False
    taps = "centre"

    kind: Literal["tiny"] = "tiny"
    curved: bool = True
    """Search curved directions where there are no linear ones by construction; false leaves random directions there."""

    def preserves_function(self, activation: str) -> bool:
        return False

    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        rows = residuals.fold.reads(site.sources).matrix
        alpha = self._directions(residuals, site, max(sizes), generator, meter)
        before = meter.mm(rows, alpha.T)
        scale = _rms(before).clamp_min(1e-12)
        sign, hidden = _signed(before / scale, residuals, site, meter)
        fan_in, bias = split_fan_in(site, residuals, alpha * (sign / scale)[:, None])
        refit = Refit.of(residuals, dict.fromkeys(site.targets, hidden), meter)
        most = len(alpha)
        return {
            k: Extension(
                {source: block[:k] for source, block in fan_in.items()}, bias[:k], refit.fan_out(k / most, meter)
            )
            for k in sizes
        }

    def edge(self, residuals: Residuals, site: Site, meter: Meter) -> Extension:
        (target,) = site.targets
        refit = Refit.of(residuals, {target: residuals.fold.reads(site.sources).matrix[:, :-1]}, meter)
        return Extension(edge=refit.fan_out(1.0, meter)[target])

    def _directions(
        self, residuals: Residuals, site: Site, most: int, generator: torch.Generator, meter: Meter
    ) -> Tensor:
        """Fan-in rows, best first, the bias last; [most, p2]."""
        assert site.activation is not None
        rows = residuals.fold.reads(site.sources)
        if not _blind(residuals, site):
            alpha = _linear_directions(residuals, site, most, generator, meter)
        elif self.curved and rows.p > 1 and worth_searching(rows.p - 1, rows.n):
            outputs = residuals.strongest(site.targets, min(most, CURVED_OUTPUTS), generator)
            if residuals.fold.cluster > 1:
                spread, along = outputs
                outputs = spread * _inflation(rows.matrix, along, residuals.fold.cluster), along
            curved = curved_directions(rows.whitened(meter), *outputs, most, generator, meter)
            alpha = _kinked(rows.reading(curved, meter), site.activation)[:most]
        else:
            alpha = rows.matrix.new_zeros(0, rows.p)
        if len(alpha) < most:
            rank = rows.whitened(meter).shape[1]
            draw = torch.randn(rank, most - len(alpha), generator=generator, dtype=torch.float64)
            extra = rows.reading((draw / draw.norm(dim=0).clamp_min(1e-12)).to(alpha), meter)
            # Kinks spread over the data: units through the mean alone could only build cones.
            extra[:, -1] += torch.randn(len(extra), generator=generator, dtype=torch.float64).to(extra)
            alpha = torch.cat([alpha, extra])
        return alpha


def _blind(residuals: Residuals, site: Site) -> bool:
    """Whether E[b2^T G_perp] is 0 by construction: every target reads already whatever the new units read."""
    arch = residuals.fold.arch
    return all(set(site.sources) <= set(arch.parents(target)) for target in site.targets)


def _linear_directions(residuals: Residuals, site: Site, most: int, generator: torch.Generator, meter: Meter) -> Tensor:
    """Directions of the linearised theory above the noise floor (growth_math 1.2), then faint ones below it; [m, p2]."""
    rows = residuals.fold.reads(site.sources)
    found = leading(residuals, site.sources, site.targets, most, generator, meter)
    # Without signal sqrt(n) S^-1/2 N v is p2 entries whose variance is that of G_perp v, and the best v makes use of chance in
    # every output: Chevet's bound on the largest singular value, sqrt(p2) + sqrt(q) where the outputs are alike.
    along = residuals.along(found.right, site.targets)
    deviation = _rms(along) * math.sqrt(min(rows.varying, rows.n))
    if residuals.fold.cluster > 1:
        deviation = deviation * _inflation(rows.matrix, along, residuals.fold.cluster)
    noise = deviation.tolist()
    outputs = float(torch.linalg.vector_norm(residuals.fold.feeds(site.targets))) / math.sqrt(rows.n)
    size = (math.sqrt(rows.n) * found.values).tolist()
    clear = [i for i, s in enumerate(size) if s > noise[i] + outputs and s > 0]
    # In a half of the examples faint ones would be a linear map learned from noise, nearly the same from either half, and
    # predictions would stand out where there is nothing to find.
    faint = [i for i, s in enumerate(size) if s > FAINT * noise[i] and s > 0 and rows.whole is None and i not in clear]
    wanted = clear + faint
    # They are sorted, so that it is nearly always the first ones: a view then.
    return (found.read[:, : len(wanted)] if wanted == [*range(len(wanted))] else found.read[:, wanted]).T


def _rms(columns: Tensor) -> Tensor:
    """Of every column of [n, m], [m]."""
    return columns.square().mean(0).sqrt()


def _inflation(rows: Tensor, along: Tensor, cluster: int) -> Tensor:
    """How much larger noise is in means of z g than independent rows would make it, by direction: rows of one example are
    alike (the design effect of cluster sampling, Kish 1965). A few thousand rows, each column to its own scale, tell it."""
    some = min(len(rows), INFLATION_ROWS // cluster * cluster)
    white = rows[:some, :-1] - rows[:some, :-1].mean(0)
    white = white / white.square().mean(0).sqrt().clamp_min(1e-12)
    found = []
    for column in along[:some].T:
        terms = (white * column[:, None]).view(-1, cluster, white.shape[1])
        found.append((terms.sum(1).square().sum() / terms.square().sum().clamp_min(1e-30)).clamp_min(1.0).sqrt())
    return torch.stack(found)


def _kinked(alpha: Tensor, activation: str) -> Tensor:
    """Move an odd activation off its centre, where it has no curvature; others bend at the mean already."""
    if ACTIVATIONS[activation].odd:
        alpha[:, -1] += 1.0
    return alpha


def _signed(before: Tensor, residuals: Residuals, site: Site, meter: Meter) -> tuple[Tensor, Tensor]:
    """The sign of each unit under which it follows the residual more closely, [k], and its values, [n, k] (1.3)."""
    assert site.activation is not None
    function = FUNCTIONS[site.activation]
    if ACTIVATIONS[site.activation].odd:
        return torch.ones_like(before[0]), function(before)
    both = function(torch.cat([before, -before], 1))
    centred = both - both.mean(0)
    followed = side_by_side([residuals.cross(centred, target) for target in site.targets])
    plain, flipped = (followed.square().sum(1) / centred.square().sum(0).clamp_min(1e-12)).view(2, -1)
    flip = flipped > plain
    as_is, mirrored = both.tensor_split(2, 1)
    return torch.where(flip, -1.0, 1.0).to(before), torch.where(flip, mirrored, as_is)
