"""Net2Wider: copies of units that share their work."""

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
    columns_of,
    extension_of,
    fan_in_of,
    fan_out_of,
    prefixes,
    rewritten_fan_out,
)
from raygrow.growth.initializers.family import column_spread, drawn, normal
from raygrow.growth.meter import Meter
from raygrow.nn import Extension


@final
@dataclass(frozen=True, kw_only=True)
class Net2Net(AbstractInitializer):
    """Copies of random units that share their fan-out (Net2WiderNet: Chen, Goodfellow and Shlens, ICLR 2016).

    A new unit copies the fan-in of an existing one, drawn uniformly; a unit of which there are then c has its fan-out
    divided among the c, omega_i = share_i omega with the shares adding up to 1. Equal copies have equal gradients and stay
    equal; unequal shares (LEMON: Wang et al., ICLR 2024) or noise part them. At a new node there is nothing to copy: it
    begins as ``random`` does, with fan-out 0.
    """

    supports = frozenset({Widen, AddNode, AddEdge, AddBlock})
    line_searched = False
    differentiates = False
    # A copy computes what its parent does only where nothing normalises it.
    norms = ("none",)

    kind: Literal["net2net"] = "net2net"
    split: Literal["unequal", "equal"] = "unequal"
    """How copies share a fan-out: ``unequal`` draws the shares, each between 1/3 and 3 times another; ``equal``: 1 / c, the
    original."""
    noise: float = 0.0
    """Standard deviation of noise on the fan-in of copies, relative to that of the existing weights of the same tensor;
    above 0 the function changes a little. At least 0."""

    def __post_init__(self) -> None:
        if not self.noise >= 0:
            raise ValueError(f"`noise >= 0` must hold, but got {self.noise}")

    def preserves_function(self, activation: str) -> bool:
        return self.noise == 0.0

    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        most, old = max(sizes), fan_in_of(residuals, site)
        units = len(old)
        if units == 0:
            return prefixes(residuals, site, sizes, drawn(residuals, site, most, generator))
        copied = torch.randint(units, (most,), generator=generator)
        weights = torch.ones(units + most, dtype=torch.float64)
        if self.split == "unequal":
            weights = 0.5 + torch.rand(units + most, generator=generator, dtype=torch.float64)
        alpha = old[copied.to(old.device)]
        spread = column_spread(residuals, site)
        if self.noise > 0 and spread is not None:
            alpha[:, :-1] += self.noise * spread * normal(most, columns_of(residuals, site) - 1, generator, alpha)
        omega = fan_out_of(residuals, site)
        return {k: _shared(residuals, site, alpha[:k], omega, copied[:k], weights[: units + k]) for k in sizes}


def _shared(
    residuals: Residuals, site: Site, alpha: Tensor, omega: Tensor, copied: Tensor, weights: Tensor
) -> Extension:
    """Units of this fan-in whose origins, [k], give up part of their fan-out, in proportion to weights [units + k]."""
    units = omega.shape[1]
    origin = torch.cat([torch.arange(units), copied])
    total = torch.zeros(units, dtype=weights.dtype).index_add_(0, origin, weights)
    share = (weights / total[origin]).to(omega)
    kept = share[:units] * omega
    given = share[units:] * omega[:, copied.to(omega.device)]
    return extension_of(residuals, site, alpha, given, rewritten_fan_out(residuals, site, kept))
