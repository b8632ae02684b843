"""How new weights begin.

An initializer sees the statistics of a site and writes new weights only; it never decides whether to grow, never sees
a strategy and never touches an existing weight (a closed-form update of those is training, done to control and
candidate alike).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from raygrow.architecture import AbstractMove, Site
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.meter import Meter
from raygrow.nn import Extension


class AbstractInitializer(ABC):
    """One way to begin new weights. Concrete classes are final frozen dataclasses with a ``kind`` field.

    Attributes:
        supports: the moves it can initialise.
        whitens: whether it reads whitened rows; those of the input are then prepared once a campaign.
        line_searched: whether its fan-out is scaled by a line search on ``search`` before the probe.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "use_attribute_docstrings": True}
    supports: ClassVar[frozenset[type[AbstractMove]]]
    whitens: ClassVar[bool] = False
    line_searched: ClassVar[bool]

    @abstractmethod
    def preserves_function(self, activation: str) -> bool:
        """Whether the grown network computes its parent's function exactly, for this activation."""

    @abstractmethod
    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        """New weights of a move at ``site`` in each of ``sizes`` (units; ``(0,)`` for an edge).

        What it asks of ``residuals`` is what is multiplied and solved.
        Sizes share their draws and their directions: the first k units of a larger extension read what the k units
        of a smaller one read, so that sizes are compared on the same ground and the solves are paid for once.
        """


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
