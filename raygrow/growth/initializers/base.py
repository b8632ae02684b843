"""How new weights begin.

An initializer sees the statistics of a site and writes new weights only; it never decides whether to grow, never sees
a strategy and never touches an existing weight (a closed-form update of those is training, done to control and
candidate alike).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from raygrow.architecture import AbstractMove, Site
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.meter import Meter
from raygrow.growth.refit import refitted
from raygrow.growth.unrolled import Taps, unroll
from raygrow.nn import Extension


class AbstractInitializer(ABC):
    """One way to begin new weights. Concrete classes are final frozen dataclasses with a ``kind`` field.

    Attributes:
        supports: the moves it can initialise.
        whitens: whether it reads whitened rows; those of the input are then prepared once a campaign.
        line_searched: whether its fan-out is scaled by a line search on ``search`` before the probe.
        taps: of kernels that read its units on a map, those it gives weights to: all, or the centre and a refit of all.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "use_attribute_docstrings": True}
    supports: ClassVar[frozenset[type[AbstractMove]]]
    whitens: ClassVar[bool] = False
    line_searched: ClassVar[bool]
    taps: ClassVar[Taps] = "all"

    @abstractmethod
    def preserves_function(self, activation: str) -> bool:
        """Whether the grown network computes its parent's function exactly, for this activation."""

    @abstractmethod
    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        """New weights of a move between vectors at ``site`` in each of ``sizes`` (units; ``(0,)`` for an edge).

        What it asks of ``residuals`` is what is multiplied and solved.
        Sizes share their draws and their directions: the first k units of a larger extension read what the k units
        of a smaller one read, so that sizes are compared on the same ground and the solves are paid for once.
        """

    @final
    def begin(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        """``extend`` at any site: one on maps is written in rows first, and its weights folded back into kernels."""
        if site.plain:
            return self.extend(residuals, site, sizes, generator, meter)
        unrolled = unroll(residuals, site, self.taps, meter)
        written = self.extend(unrolled.residuals, unrolled.site, sizes, generator, meter)
        found = {k: unrolled.restore(extension) for k, extension in written.items()}
        if self.taps == "centre" and site.activation is not None:
            found = refitted(residuals, site, found, sizes, meter)
        if site.norm == "batch":
            read = unrolled.residuals.fold.reads(unrolled.site.sources).matrix
            found = {k: _with_moments(extension, written[k], read, meter) for k, extension in found.items()}
        return found


def _with_moments(extension: Extension, written: Extension, read: Tensor, meter: Meter) -> Extension:
    """With the moments of the new units' pre-activations on the rows that they read."""
    assert written.bias is not None
    (fan_in,) = written.fan_in.values()
    before = meter.mm(read[:, :-1], fan_in.T.to(read)) + written.bias.to(read)
    variance, mean = torch.var_mean(before, 0, correction=0)
    return replace(extension, moments=(mean, variance))


def split_fan_in(site: Site, residuals: Residuals, alpha: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Cut fan-in rows [k, p2], the bias last, into one block a source and the bias."""
    widths = [width_of(residuals, source) for source in site.sources]
    blocks = torch.split(alpha[:, :-1], widths, dim=1)
    return dict(zip(site.sources, blocks, strict=True)), alpha[:, -1]


def width_of(residuals: Residuals, node: str) -> int:
    """Units of a node."""
    return residuals.fold.arch.size(node)


def prefixes(
    sizes: Sequence[int], fan_in: Mapping[str, Tensor], bias: Tensor, fan_out: Mapping[str, Tensor]
) -> dict[int, Extension]:
    """The first k units of an extension, for every k."""
    return {
        k: Extension({s: w[:k] for s, w in fan_in.items()}, bias[:k], {t: w[:, :k] for t, w in fan_out.items()})
        for k in sizes
    }
