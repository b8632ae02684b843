"""Random directions: what any informed initializer must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch

from raygrow.architecture import AddBlock, AddEdge, AddNode, Site, Widen
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers.base import AbstractInitializer, prefixes, split_fan_in, width_of
from raygrow.growth.meter import Meter
from raygrow.nn import Extension


@final
@dataclass(frozen=True, kw_only=True)
class RandomInitializer(AbstractInitializer):
    """He-normal fan-in (He et al. 2015), zero bias and zero fan-out: preserves the function, alive in its fan-out."""

    supports = frozenset({Widen, AddNode, AddEdge, AddBlock})
    line_searched = False

    kind: Literal["random"] = "random"
    gain: float = 2.0
    """Variance of a fan-in weight times the fan-in; 2 is He's value for ReLU. Above 0."""

    def __post_init__(self) -> None:
        if not self.gain > 0:
            raise ValueError(f"`gain > 0` must hold, but got {self.gain}")

    def preserves_function(self, activation: str) -> bool:
        return True

    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        widths = {target: width_of(residuals, target) for target in site.targets}
        p = 1 + sum(width_of(residuals, source) for source in site.sources)
        like = residuals.fold.values[site.sources[0]]
        if site.activation is None:
            (target,) = site.targets
            return {0: Extension(edge=like.new_zeros(widths[target], p - 1))}
        most = max(sizes)
        draw = torch.randn(most, p, generator=generator, dtype=torch.float64).to(like)
        alpha = draw * (self.gain / max(p - 1, 1)) ** 0.5
        alpha[:, -1] = 0.0
        fan_in, bias = split_fan_in(site, residuals, alpha)
        return prefixes(sizes, fan_in, bias, {target: like.new_zeros(width, most) for target, width in widths.items()})
