"""Random directions: what any informed initializer must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch

from raygrow.architecture import AddBlock, AddEdge, AddNode, Site, Widen
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers.base import AbstractInitializer, columns_of, like_of, prefixes
from raygrow.growth.initializers.family import HE, column_spread, drawn, normal
from raygrow.growth.meter import Meter
from raygrow.nn import Extension


@final
@dataclass(frozen=True, kw_only=True)
class RandomInitializer(AbstractInitializer):
    """He-normal fan-in (He et al. 2015), zero bias and zero fan-out: preserves the function, alive in its fan-out."""

    supports = frozenset({Widen, AddNode, AddEdge, AddBlock})
    line_searched = False
    differentiates = False

    kind: Literal["random"] = "random"
    scale: Literal["he", "existing"] = "he"
    """``he``: variance ``gain`` / fan-in; ``existing``: the standard deviation of the node's existing weights, tensor by
    tensor, which training has set (He's for a new node, where there are none)."""
    gain: float = HE
    """Variance of a fan-in weight times the fan-in; 2 is He's value for ReLU. Above 0."""

    def __post_init__(self) -> None:
        if not self.gain > 0:
            raise ValueError(f"`gain > 0` must hold, but got {self.gain}")

    def preserves_function(self, activation: str) -> bool:
        return True

    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        spread = column_spread(residuals, site) if self.scale == "existing" else None
        if spread is None:
            return prefixes(residuals, site, sizes, drawn(residuals, site, max(sizes), generator, self.gain))
        alpha = normal(max(sizes), columns_of(residuals, site), generator, like_of(residuals, site))
        alpha[:, :-1] *= spread
        alpha[:, -1] = 0.0
        return prefixes(residuals, site, sizes, alpha)
