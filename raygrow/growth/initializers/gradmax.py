"""GradMax: the fan-out that gives the new fan-in the largest gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch

from raygrow.architecture import ACTIVATIONS, AddBlock, AddEdge, AddNode, Site, Widen
from raygrow.growth.bottleneck import FORMED, Residuals, eigenpairs, leading_eigenpairs
from raygrow.growth.initializers.base import AbstractInitializer, columns_of, prefixes
from raygrow.growth.meter import Meter
from raygrow.nn import Extension


@final
@dataclass(frozen=True, kw_only=True)
class GradMax(AbstractInitializer):
    """Zero fan-in, fan-out along the top right singular vectors of E[b2 G^T] (Evci et al., ICLR 2022, eq. 10).

    With fan-out omega the gradient of a zero fan-in is proportional to E[b2 G^T] omega, so for orthonormal omega the
    squared norm is largest along the top singular vectors. Where the activation's slope at 0 is 0 (torch's ReLU), a
    zero fan-in would never move; ``at_zero`` says how it begins there instead.
    """

    supports = frozenset({Widen, AddNode, AddEdge, AddBlock})
    line_searched = False
    differentiates = False
    # Normalised within a layer or group, a fan-in of next to nothing is as large as any other.
    norms = ("none", "batch")

    kind: Literal["gradmax"] = "gradmax"
    scale: float = 0.5
    """Norm of each new fan-out vector, relative to a unit vector. Above 0."""
    at_zero: Literal["noise", "slope"] = "noise"
    """Where the activation's slope at 0 is 0: ``noise`` draws a small fan-in, so that each unit follows the examples that
    its draw puts on the rising side; ``slope`` keeps the fan-in at 0 and puts every example there by a small bias, which has
    the gradient of the paper's ReLU of slope 1 at 0 and adds a constant to the targets."""
    noise: float = 1e-3
    """Standard deviation of that fan-in, or the bias, in the units of weights. Above 0."""

    def __post_init__(self) -> None:
        if not self.scale > 0 or not self.noise > 0:
            raise ValueError(f"`scale > 0` and `noise > 0` must hold, but got {self.scale} and {self.noise}")

    def preserves_function(self, activation: str) -> bool:
        facts = ACTIVATIONS[activation]
        return facts.at_zero == 0.0 and facts.slope_at_zero != 0.0

    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        assert site.activation is not None
        fold = residuals.fold
        p = columns_of(residuals, site)
        rows, g = fold.reads(site.sources).matrix, fold.feeds(site.targets)
        m2 = meter.mm(rows.T, g) / len(g)
        most = max(sizes)
        q = m2.shape[1]

        def power(block: torch.Tensor) -> torch.Tensor:
            return meter.mm(m2.T, meter.mm(m2, block))

        if q <= FORMED:
            _, right = eigenpairs(meter.mm(m2.T, m2), min(most, p, q), generator, meter)
        else:
            _, right = leading_eigenpairs(power, q, min(most, p), m2, generator, meter)
        # Beyond the rank of E[b2 G^T] there is no direction left to prefer: unit vectors at random keep units distinct.
        extra = torch.randn(q, most - right.shape[1], generator=generator, dtype=torch.float64).to(m2)
        omega = self.scale * torch.cat([right, extra / extra.norm(dim=0)], 1)
        alpha = m2.new_zeros(most, p)
        if ACTIVATIONS[site.activation].slope_at_zero == 0.0:
            if self.at_zero == "slope":
                alpha[:, -1] = self.noise
            else:
                draw = torch.randn(most, p - 1, generator=generator, dtype=torch.float64)
                alpha[:, :-1] = self.noise * draw.to(m2)
        return prefixes(residuals, site, sizes, alpha, omega)
