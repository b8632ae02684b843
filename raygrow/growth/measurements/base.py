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

from raygrow.architecture import AbstractMove, Architecture, Site
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers import AbstractInitializer
from raygrow.growth.meter import Meter
from raygrow.growth.prediction import hidden_rows
from raygrow.growth.statistics import Pass, picked
from raygrow.nn import Extension
from raygrow.nn.maps import map_of

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
        found = self.initializer.begin(self.residuals, self.site, sorted(self.moves), generator, self.meter)
        return {size: self._awake(extension) for size, extension in found.items()}

    def read_by(self, extension: Extension) -> dict[str, Tensor]:
        """What each target reads of its new units, one row for each of its own; [rows, k x taps], unit by unit."""
        return hidden_rows(extension, self.site, self.residuals.fold, self.meter)

    def edge_rows(self) -> Tensor:
        """What the target of an edge would read through it, one row for each of its own."""
        fold, site = self.residuals.fold, self.site
        return fold.patches(site.sources, site.reads, fold.arch.by_name[site.targets[0]].grid).matrix[:, :-1]

    def _awake(self, extension: Extension) -> Extension:
        if extension.rewritten:
            # Offspring share the work of a unit: they are awake, and what they do is not theirs alone.
            return extension
        if extension.edge is not None:
            if bool(extension.edge.any()):
                return extension
            step = self.residuals.cross(self.edge_rows(), self.site.targets[0]).T
            return Extension(edge=step.reshape(extension.edge.shape))
        silent = not any(bool(block.any()) for block in extension.fan_out.values())
        read = self.read_by(extension)
        if silent:
            fan_out = {
                target: self.residuals.cross(read[target], target).T.reshape(block.shape)
                for target, block in extension.fan_out.items()
            }
            return replace(extension, fan_out=fan_out)
        faint = max(float(rows.square().mean()) for rows in read.values()) < FAINT**2
        # What a pooled unit feeds does not say which of its positions to move.
        return self._driven(extension) if faint and self.site.pool == 1 else extension

    def _driven(self, extension: Extension) -> Extension:
        """With the fan-in after a step along E[omega^T G b2^T], at unit rms of the pre-activations."""
        fold, site, meter = self.residuals.fold, self.site, self.meter
        pulled: Tensor | None = None
        for target, reading in zip(site.targets, site.feeds, strict=True):
            g, omega = fold.gradient_map(target), extension.fan_out[target]
            meter.products += reading.flops(omega.shape[1], site.value_grid, len(omega)) * len(g)
            part = map_of(reading, site.value_grid).pull(g, omega.to(g))
            pulled = part if pulled is None else pulled + part
        assert pulled is not None
        rows = fold.patches(site.sources, site.reads, site.grid).matrix
        alpha = meter.mm(picked(pulled, fold.positions(site.grid)).T, rows) / len(rows)
        alpha = alpha / meter.mm(rows, alpha.T).square().mean(0).sqrt().clamp_min(1e-12)[:, None]
        shapes = {source: extension.fan_in[source].shape for source in site.sources}
        blocks = torch.split(alpha[:, :-1], [shape[1:].numel() for shape in shapes.values()], 1)
        fan_in = {source: block.reshape(shapes[source]) for source, block in zip(site.sources, blocks, strict=True)}
        return replace(extension, fan_in=fan_in, bias=alpha[:, -1])


class AbstractMeasurement(ABC):
    """One number of a move. An instance serves one network, so that what all sites share is computed once.

    Attributes:
        name: of those that ship, in ``AbstractStrategy.measures`` and in the ledger; a user's own goes by ``module:Class``.
        curved: whether it reads curvature samples (``Fold.curvature``); they cost one more backward pass.
        differentiates: whether it may ask autograd for anything, as ``AbstractInitializer.differentiates``.
    """

    name: ClassVar[str]
    curved: ClassVar[bool] = False
    differentiates: ClassVar[bool] = True

    @abstractmethod
    def measure(self, subject: Subject) -> Mapping[int, float]:
        """By units of the move; a size is absent where the measurement is undefined."""

    def unplaced(self, move: AbstractMove, arch: Architecture) -> float | None:
        """Of a move that has no site; None where that is undefined."""
        return None
