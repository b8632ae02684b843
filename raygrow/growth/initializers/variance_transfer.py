"""Variance transfer: pairs of new units that cancel, at the scale of the weights that are there."""

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
    like_of,
    rewritten_fan_in,
    rewritten_fan_out,
)
from raygrow.growth.initializers.family import column_spread, normal
from raygrow.growth.meter import Meter
from raygrow.nn import Extension
from raygrow.nn.activations import FUNCTIONS


@final
@dataclass(frozen=True, kw_only=True)
class VarianceTransfer(AbstractInitializer):
    """Pairs of units with fan-in (V, V) and fan-out (Z, -Z) (Yuan, Savarese and Maire, NeurIPS 2023).

    A pair adds Z h - Z h = 0 whatever the activation: the function stays, and unlike with a fan-out of 0 both sides have a
    gradient from the first step, of opposite sign in V, so that the two part. V has the variance of the node's existing
    fan-in, tensor by tensor, Z that of its existing fan-out times h / (h + k), which is what a fan-out of h + k units keeps
    of it (1 / fan-in both at a new node). The last of an odd number of units has no partner and fan-out 0.
    """

    supports = frozenset({Widen, AddNode, AddEdge, AddBlock})
    line_searched = False
    differentiates = False
    # Twins normalised together within a layer or group leave nothing of each other.
    norms = ("none", "batch")

    kind: Literal["variance_transfer"] = "variance_transfer"
    rescale: bool = False
    """Scale the existing fan-out by sqrt(h / (h + k)) too, as the paper does, and the fan-in by its inverse, which leaves the
    function as it is; only where the activation is homogeneous (ReLU), elsewhere existing weights stay."""

    def preserves_function(self, activation: str) -> bool:
        return True

    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        most, p, like = max(sizes), columns_of(residuals, site), like_of(residuals, site)
        pairs = (most + 1) // 2
        spread = column_spread(residuals, site)
        v = normal(pairs, p, generator, like)
        v[:, :-1] *= (p - 1) ** -0.5 if spread is None else spread
        v[:, -1] = 0.0
        old = fan_out_of(residuals, site)
        z = normal(pairs, len(old), generator, like).T
        return {k: self._of_size(residuals, site, k, v, z, old) for k in sizes}

    def _of_size(self, residuals: Residuals, site: Site, k: int, v: Tensor, z: Tensor, old: Tensor) -> Extension:
        units = old.shape[1]
        shrink = (units / (units + k)) ** 0.5
        spread = float(old.std(correction=0)) * shrink if units else k**-0.5
        omega = torch.stack([spread * z, -spread * z], 2).flatten(1)[:, :k]
        if k % 2:
            omega[:, -1] = 0.0
        rewritten: dict[str, Tensor] = {}
        assert site.activation is not None
        if self.rescale and units and homogeneous(site.activation):
            rewritten = {
                **rewritten_fan_in(residuals, site, fan_in_of(residuals, site) / shrink),
                **rewritten_fan_out(residuals, site, old * shrink),
            }
        return extension_of(residuals, site, v.repeat_interleave(2, 0)[:k], omega, rewritten)


def homogeneous(activation: str) -> bool:
    """Whether sigma(c z) = c sigma(z) for c > 0, so that a factor may go from the fan-out of a unit to its fan-in."""
    z = torch.linspace(-3.0, 3.0, 25)
    return torch.equal(FUNCTIONS[activation](2 * z), 2 * FUNCTIONS[activation](z))
