"""How new weights begin.

An initializer sees the statistics of a site and writes new weights; it never decides whether to grow and never sees a
strategy. It touches an existing weight only where a unit shares its work with its offspring and both together compute what
it did (``Extension.rewritten``): any other change of existing weights is training, done to control and candidate alike.

Initializers think in rows: a unit is a fan-in row alpha [p2], the bias last, and a fan-out column omega [q], the targets one
below the other. The functions below are the only ones that know how those lie in a network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from raygrow.architecture import NORMS, AbstractMove, Site
from raygrow.errors import MoveError
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.meter import Meter
from raygrow.growth.refit import refitted
from raygrow.growth.rows import cut
from raygrow.growth.unrolled import Taps, unroll
from raygrow.nn import Extension, bias_name, weight_name
from raygrow.nn.activations import FUNCTIONS


class AbstractInitializer(ABC):
    """One way to begin new weights. Concrete classes are final frozen dataclasses with a ``kind`` field.

    Attributes:
        supports: the moves it can initialise.
        whitens: whether it reads whitened rows; those of the input are then prepared once a campaign.
        line_searched: whether its fan-out is scaled by a line search on ``search`` before the probe.
        norms: of the units that it can begin.
        differentiates: whether it may ask autograd for anything. One that says false begins in torch's inference mode, whose
            tensors autograd refuses and whose calls cost less.
        taps: of kernels that read its units on a map, those it gives weights to: all, or the centre and a refit of all.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "use_attribute_docstrings": True}
    supports: ClassVar[frozenset[type[AbstractMove]]]
    whitens: ClassVar[bool] = False
    line_searched: ClassVar[bool]
    differentiates: ClassVar[bool] = True
    taps: ClassVar[Taps] = "all"
    norms: ClassVar[tuple[str, ...]] = NORMS

    @abstractmethod
    def preserves_function(self, activation: str) -> bool:
        """Whether the grown network computes its parent's function exactly, for this activation."""

    def supports_activation(self, activation: str) -> bool:
        """Whether it can begin units of this activation; a campaign whose ``network.activation`` it cannot is refused."""
        return True

    @abstractmethod
    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        """New units between vectors at ``site`` in each of ``sizes``.

        What it asks of ``residuals`` is what is multiplied and solved.
        Sizes share their draws and their directions: the first k units of a larger extension read what the k units
        of a smaller one read, so that sizes are compared on the same ground and the solves are paid for once.
        """

    def edge(self, residuals: Residuals, site: Site, meter: Meter) -> Extension:
        """A new edge between vectors. At 0, by default: that changes nothing and has its whole gradient."""
        outputs = sum(width_of(residuals, target) for target in site.targets)
        return Extension(edge=like_of(residuals, site).new_zeros(outputs, columns_of(residuals, site) - 1))

    @final
    def can_begin(self, site: Site) -> bool:
        """Whether it can begin new weights there: a new edge, or units of this activation and norm."""
        return site.activation is None or (self.supports_activation(site.activation) and site.norm in self.norms)

    @final
    def begin(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        """``extend`` or ``edge`` (of size 0) at any site: one on maps is written in rows first, and its weights folded back
        into kernels."""

        def plainly(residuals: Residuals, site: Site) -> Mapping[int, Extension]:
            if site.activation is None:
                return {0: self.edge(residuals, site, meter)}
            return self.extend(residuals, site, sizes, generator, meter)

        if site.plain:
            return plainly(residuals, site)
        unrolled = unroll(residuals, site, self.taps, meter)
        written = plainly(unrolled.residuals, unrolled.site)
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


def width_of(residuals: Residuals, node: str) -> int:
    """Units of a node."""
    return residuals.fold.arch.size(node)


def columns_of(residuals: Residuals, site: Site) -> int:
    """p2, what a unit of the site reads, the constant included."""
    return 1 + sum(width_of(residuals, source) for source in site.sources)


def like_of(residuals: Residuals, site: Site) -> Tensor:
    """A tensor of the type and device that new weights are computed in."""
    return residuals.fold.values[site.sources[0]]


def split_fan_in(site: Site, residuals: Residuals, alpha: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Cut fan-in rows [k, p2], the bias last, into one block a source and the bias."""
    blocks = cut(alpha[:, :-1], [width_of(residuals, source) for source in site.sources], 1)
    return dict(zip(site.sources, blocks, strict=True)), alpha[:, -1]


def split_fan_out(site: Site, residuals: Residuals, omega: Tensor) -> dict[str, Tensor]:
    """Cut fan-out columns [q, k], the targets one below the other, into one block a target."""
    blocks = cut(omega, [width_of(residuals, target) for target in site.targets], 0)
    return dict(zip(site.targets, blocks, strict=True))


def fan_in_of(residuals: Residuals, site: Site) -> Tensor:
    """Fan-in rows of the units that are there already, the bias last, [units, p2]; none at a new node."""
    node, like = site.node, like_of(residuals, site)
    if node is None:
        return like.new_zeros(0, columns_of(residuals, site))
    named = residuals.fold.network.named
    blocks = [named[weight_name(source, node)].detach() for source in site.sources]
    return torch.cat([*blocks, named[bias_name(node)].detach()[:, None]], 1).to(like)


def fan_out_of(residuals: Residuals, site: Site) -> Tensor:
    """Fan-out columns of the units that are there already, [q, units]; none at a new node."""
    node, like = site.node, like_of(residuals, site)
    if node is None:
        return like.new_zeros(sum(width_of(residuals, target) for target in site.targets), 0)
    named = residuals.fold.network.named
    return torch.cat([named[weight_name(node, target)].detach() for target in site.targets]).to(like)


def rewritten_fan_in(residuals: Residuals, site: Site, alpha: Tensor) -> dict[str, Tensor]:
    """The existing fan-in as [units, p2] to whole parameters by name, for ``Extension.rewritten``."""
    node = _node_of(site, residuals)
    blocks, bias = split_fan_in(site, residuals, alpha)
    return {**{weight_name(source, node): w for source, w in blocks.items()}, bias_name(node): bias}


def rewritten_fan_out(residuals: Residuals, site: Site, omega: Tensor) -> dict[str, Tensor]:
    """The existing fan-out as [q, units] to whole parameters by name, for ``Extension.rewritten``."""
    node = _node_of(site, residuals)
    return {weight_name(node, target): w for target, w in split_fan_out(site, residuals, omega).items()}


def _node_of(site: Site, residuals: Residuals) -> str:
    node = site.node
    if node is None:
        raise MoveError(f"{site}: a new node has no weights to rewrite; only an existing node, widened, has")
    return node


def preactivations_of(residuals: Residuals, site: Site, alpha: Tensor, meter: Meter) -> Tensor:
    """What units of this fan-in [k, p2] have before their activation, one row a row that they read, [n, k]."""
    return meter.mm(residuals.fold.reads(site.sources).matrix, alpha.T)


def hidden_of(residuals: Residuals, site: Site, alpha: Tensor, meter: Meter) -> Tensor:
    """Values of units of this fan-in [k, p2], one row a row that they read, [n, k]."""
    assert site.activation is not None
    return FUNCTIONS[site.activation](preactivations_of(residuals, site, alpha, meter))


def extension_of(
    residuals: Residuals,
    site: Site,
    alpha: Tensor,
    omega: Tensor | None = None,
    rewritten: Mapping[str, Tensor] | None = None,
) -> Extension:
    """New units of fan-in [k, p2] and fan-out [q, k] (None: 0) as an extension."""
    if omega is None:
        omega = alpha.new_zeros(sum(width_of(residuals, target) for target in site.targets), len(alpha))
    fan_in, bias = split_fan_in(site, residuals, alpha)
    return Extension(fan_in, bias, split_fan_out(site, residuals, omega), rewritten=rewritten or {})


def prefixes(
    residuals: Residuals, site: Site, sizes: Sequence[int], alpha: Tensor, omega: Tensor | None = None
) -> dict[int, Extension]:
    """The first k of these units, for every k."""
    return {k: extension_of(residuals, site, alpha[:k], None if omega is None else omega[:, :k]) for k in sizes}
