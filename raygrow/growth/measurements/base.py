"""What a strategy may know of a site beside the prediction: one number a move, measured on the statistics examples.

A strategy sees numbers only. It names the measurements that it reads (``AbstractStrategy.measures``); growth computes those
and no others, bills them as statistics and puts them on the proposal and, for probed candidates, in the ledger.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from raygrow.architecture import AbstractMove, Site
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers import AbstractInitializer
from raygrow.growth.meter import Meter
from raygrow.growth.prediction import hidden_values
from raygrow.growth.statistics import Pass
from raygrow.nn import Extension

FAINT = 0.05
"""Rms below which values of new units are the noise that a zero fan-in begins with (GradMax with ReLU); others' are near 1."""


@dataclass(frozen=True)
class Subject:
    """One site of a network, with the moves on offer there.

    Attributes:
        site: what the new units read and feed, and the node that they widen.
        moves: by their units.
        passed: the network on the statistics examples.
        residuals: of all of them.
        initializer: the member's.
        seed: of its draws.
        meter: takes the bill.
    """

    site: Site
    moves: Mapping[int, AbstractMove]
    passed: Pass
    residuals: Residuals
    initializer: AbstractInitializer
    seed: int
    meter: Meter

    @cached_property
    def extensions(self) -> Mapping[int, Extension]:
        """New weights by size, as the initializer begins them; awake: what adds nothing at birth has taken one step.

        A measurement to first order in the new units sees nothing of units without fan-out (random, NORTH*) or fan-in
        (GradMax). Their first gradient step says what they are worth, and its length does not matter to a measurement that
        chooses an amplitude or divides by one.
        """
        generator = torch.Generator().manual_seed(self.seed)
        found = self.initializer.extend(self.residuals, self.site, sorted(self.moves), generator, self.meter)
        return {size: self._awake(extension) for size, extension in found.items()}

    def hidden(self, extension: Extension) -> Tensor:
        """Values of its new units, [rows, k]."""
        return hidden_values(extension, self.site, self.residuals.fold.values, self.meter)

    def _awake(self, extension: Extension) -> Extension:
        if extension.rewritten:
            # Offspring share the work of a unit: they are awake, and what they do is not theirs alone.
            return extension
        residuals, sources, targets = self.residuals, self.site.sources, self.site.targets
        if extension.edge is not None:
            if bool(extension.edge.any()):
                return extension
            return Extension(edge=residuals.cross(residuals.fold.reads(sources).matrix[:, :-1], targets[0]).T)
        assert extension.bias is not None
        silent = not any(bool(block.any()) for block in extension.fan_out.values())
        hidden = self.hidden(extension)
        if not silent and float(hidden.square().mean()) < FAINT**2:
            extension, hidden = self._driven(extension)
        if not silent:
            return extension
        fan_out = {target: residuals.cross(hidden, target).T for target in targets}
        return replace(extension, fan_out=fan_out)

    def _driven(self, extension: Extension) -> tuple[Extension, Tensor]:
        """The fan-in after a step along E[omega^T G b2^T], at unit rms of the pre-activations, and the values then."""
        fold, meter = self.residuals.fold, self.meter
        rows = fold.reads(self.site.sources).matrix
        omega = torch.cat([extension.fan_out[target] for target in self.site.targets])
        pulled = meter.mm(fold.feeds(self.site.targets), omega)
        alpha = meter.mm(pulled.T, rows) / len(rows)
        alpha = alpha / meter.mm(rows, alpha.T).square().mean(0).sqrt().clamp_min(1e-12)[:, None]
        widths = [extension.fan_in[source].shape[1] for source in self.site.sources]
        blocks = dict(zip(self.site.sources, torch.split(alpha[:, :-1], widths, 1), strict=True))
        driven = replace(extension, fan_in=blocks, bias=alpha[:, -1])
        return driven, self.hidden(driven)


class AbstractMeasurement(ABC):
    """One number of a move. An instance serves one network, so that what all sites share is computed once.

    Attributes:
        name: of those that ship, in ``AbstractStrategy.measures`` and in the ledger; a user's own goes by ``module:Class``.
        curved: whether it reads curvature samples (``Fold.curvature``); they cost one more backward pass.
    """

    name: ClassVar[str]
    curved: ClassVar[bool] = False

    @abstractmethod
    def measure(self, subject: Subject) -> Mapping[int, float]:
        """By units of the move; a size is absent where the measurement is undefined."""
