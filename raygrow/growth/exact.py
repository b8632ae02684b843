"""Weights that follow from a move and the network alone: moves that ask no initializer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from raygrow.architecture import AbstractMove, InsertLayer, Prune
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.meter import Meter
from raygrow.growth.pruning import prune
from raygrow.nn import Extension

Builder = Callable[[Residuals, Any, Meter], Extension]


def _identity_layer(residuals: Residuals, move: InsertLayer, meter: Meter) -> Extension:
    """The identity as a matrix, or as the centre of kernels; a batch norm of the moments of what it reads."""
    values = residuals.fold.values[move.after]
    edge = values.new_zeros(move.reading.weight_shape(move.size, tuple(values.shape[2:]), move.size))
    taps = edge.view(move.size, move.size, -1)
    taps[:, :, taps.shape[2] // 2] = torch.eye(move.size).to(edge)
    if move.norm != "batch":
        return Extension(edge=edge)
    variance, mean = torch.var_mean(values.transpose(0, 1).flatten(1), 1, correction=0)
    return Extension(edge=edge, moments=(mean, variance))


def _without_units(residuals: Residuals, move: Prune, meter: Meter) -> Extension:
    return prune(residuals, move, meter).extension


BUILDERS: Mapping[type[AbstractMove], Builder] = {InsertLayer: _identity_layer, Prune: _without_units}
"""By the moves that have no site."""
