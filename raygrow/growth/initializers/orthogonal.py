"""Orthonormal fan-in: random directions that do not overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch

from raygrow.architecture import AddBlock, AddEdge, AddNode, Site, Widen
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers.base import AbstractInitializer, columns_of, like_of, prefixes
from raygrow.growth.initializers.family import HE, normal
from raygrow.growth.meter import Meter
from raygrow.nn import Extension


@final
@dataclass(frozen=True, kw_only=True)
class Orthogonal(AbstractInitializer):
    """Orthonormal fan-in rows by QR of a normal draw (Saxe, McClelland and Ganguli, ICLR 2014), fan-out 0.

    alpha = sqrt(gain) Q^T with Q R = draw, [p, k], so that alpha alpha^T = gain I (semi-orthogonal where k < p). More units
    than inputs cannot be orthonormal: they come in blocks of p, each orthonormal in itself. The bias is 0.
    """

    supports = frozenset({Widen, AddNode, AddEdge, AddBlock})
    line_searched = False
    differentiates = False

    kind: Literal["orthogonal"] = "orthogonal"
    gain: float = HE
    """Squared length of a fan-in row; 2 is that of a He-normal row on average. Above 0."""

    def __post_init__(self) -> None:
        if not self.gain > 0:
            raise ValueError(f"`gain > 0` must hold, but got {self.gain}")

    def preserves_function(self, activation: str) -> bool:
        return True

    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        p, like = columns_of(residuals, site) - 1, like_of(residuals, site)
        draw = normal(max(sizes), p, generator, like)
        rows = torch.cat([meter.basis(block.T).T for block in torch.split(draw, p)])
        alpha = torch.cat([self.gain**0.5 * rows, rows.new_zeros(len(rows), 1)], 1)
        return prefixes(residuals, site, sizes, alpha)
