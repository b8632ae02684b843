"""What a move is expected to gain, before it is probed: the cross-fitted first-order prediction and its t-test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from raygrow.architecture import AbstractReading, Site
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.meter import Meter
from raygrow.growth.statistics import CHUNK, Fold, rows_of
from raygrow.nn import Extension
from raygrow.nn.activations import FUNCTIONS
from raygrow.nn.layers import Layer
from raygrow.nn.maps import map_of

if TYPE_CHECKING:
    from raygrow.growth.initializers.base import AbstractInitializer


@dataclass(frozen=True)
class Prediction:
    """First-order prediction of a move, learned on one half of the statistics examples and measured on the other.

    Attributes:
        derivative: mean of d_i = <G_i, omega sigma(alpha b2_i)>, -dloss/dgamma at birth (growth_math 1.3 and 4b).
        t: derivative over its standard error.
        p_value: one-sided, normal: P(t >= this) when the move adds nothing. Where a first look chose the site on half of
            the same evidence, it is smaller than that: good enough to choose what to probe, and nothing is accepted by it.
            None where nothing is tested.
        gain: derivative^2 / (2 curvature), signed: the loss decrease of one Newton step along the new units, with the
            generalised Gauss-Newton curvature E[(r^T delta)^2]. In the units of the loss at every site, so that sites
            compare (a derivative alone scales with the pre-activations it is taken at).
    """

    derivative: float
    t: float
    p_value: float | None
    gain: float


def response(extension: Extension, site: Site, values: Mapping[str, Tensor], meter: Meter) -> dict[str, Tensor]:
    """What the new weights add to the pre-activations of every target, given the values of every node; [n, size, *grid]."""
    if extension.edge is not None:
        (source,), (target,), (reading,) = site.sources, site.targets, site.reads
        return {target: _read(values[source], reading, extension.edge, meter)}
    return fed(extension, site, hidden_values(extension, site, values, meter), meter)


def hidden_values(extension: Extension, site: Site, values: Mapping[str, Tensor], meter: Meter) -> Tensor:
    """Values of the new units, [n, k, *value grid]. Batch norm begins as the identity."""
    assert site.activation is not None and extension.bias is not None
    total: Tensor | None = None
    for source, reading in zip(site.sources, site.reads, strict=True):
        part = _read(
            values[source], reading, extension.fan_in[source], meter, extension.bias if total is None else None
        )
        total = part if total is None else total + part
    assert total is not None
    if site.plain:
        return FUNCTIONS[site.activation](total)
    return Layer(site.unit(len(extension.bias))).value(total)


def fed(extension: Extension, site: Site, hidden: Tensor, meter: Meter) -> dict[str, Tensor]:
    """What new units of these values add to the pre-activations of every target, [n, size, *grid]."""
    return {
        target: _read(hidden, reading, extension.fan_out[target], meter)
        for target, reading in zip(site.targets, site.feeds, strict=True)
    }


def _read(values: Tensor, reading: AbstractReading, weight: Tensor, meter: Meter, bias: Tensor | None = None) -> Tensor:
    grid = tuple(values.shape[2:])
    meter.products += reading.flops(values.shape[1], grid, weight.shape[0]) * values.shape[0]
    return map_of(reading, grid).read(values, weight.to(values), None if bias is None else bias.to(values))


def hidden_rows(extension: Extension, site: Site, fold: Fold, meter: Meter) -> dict[str, Tensor]:
    """What each target reads of the new units, [rows, k x taps], one row for each of its own; maps of the units in chunks."""
    parts: dict[str, list[Tensor]] = {target: [] for target in site.targets}
    at = {target: fold.positions(fold.arch.by_name[target].grid) for target in site.targets}
    for start in range(0, len(fold), CHUNK):
        cut = slice(start, start + CHUNK)
        values = {source: fold.values[source][cut] for source in site.sources}
        hidden = hidden_values(extension, site, values, meter)
        for target, reading in zip(site.targets, site.feeds, strict=True):
            places = at[target]
            parts[target].append(rows_of(hidden, reading, None if places is None else places[cut]))
    return {target: torch.cat(rows) for target, rows in parts.items()}


def response_rows(extension: Extension, site: Site, fold: Fold, meter: Meter) -> dict[str, Tensor]:
    """``response`` at the positions that are looked at, [rows, size]."""
    if extension.edge is not None:
        (source,), (target,), (reading,) = site.sources, site.targets, site.reads
        read = rows_of(fold.values[source], reading, fold.positions(site.grid))
        return {target: meter.mm(read, extension.edge.flatten(1).T.to(read))}
    read_by = hidden_rows(extension, site, fold, meter)
    return {t: meter.mm(rows, extension.fan_out[t].flatten(1).T.to(rows)) for t, rows in read_by.items()}


def derivative(deltas: Mapping[str, Tensor], gradients: Mapping[str, Tensor], fold: Fold) -> Tensor:
    """Inner product of the response with G, or with curvature samples, by node, over all positions of an example; [n].

    Args:
        deltas, gradients: one row a position looked at; what was not looked at is taken to be alike.
    """
    total: Tensor | None = None
    for target, delta in deltas.items():
        part = (gradients[target] * delta).sum(1)
        grid = fold.arch.by_name[target].grid
        if grid:
            part = part.view(len(fold), -1).mean(1) * prod(grid)
        total = part if total is None else total + part
    assert total is not None
    return total


def predict(
    initializer: AbstractInitializer,
    halves: Sequence[Residuals],
    site: Site,
    sizes: Sequence[int],
    generator: torch.Generator,
    meter: Meter,
    *,
    both_ways: bool = True,
) -> dict[int, Prediction | None]:
    """Cross-fitted prediction of a site's moves by size; None where the new weights add nothing at birth, or take over work of
    old ones: what they add is not what changes then.

    Each half draws on from where the other stopped: with the same random directions in both, their refits would be one linear
    map and the halves' means nearly one number.

    Args:
        sizes: units of every move, ``(0,)`` for an edge; keys of the result.
        both_ways: each half learns and is measured on the other; else the first learns and the second measures, for half
            the price.
    """
    slopes: dict[int, list[Tensor]] = {k: [] for k in sizes}
    curvatures: dict[int, list[Tensor]] = {k: [] for k in sizes}
    ways = ((halves[0], halves[1].fold), (halves[1], halves[0].fold))
    for learned, measured in ways if both_ways else ways[:1]:
        extensions = initializer.begin(learned, site, sizes, generator, meter)
        if any(extension.rewritten for extension in extensions.values()):
            return dict.fromkeys(sizes)
        hidden: Tensor | None = None
        if site.activation is not None and site.plain:
            # The units of a smaller size are the first of a larger one.
            hidden = hidden_values(extensions[max(sizes)], site, measured.values, meter)
        for k, extension in extensions.items():
            if not site.plain:
                deltas = response_rows(extension, site, measured, meter)
            elif hidden is None:
                deltas = response(extension, site, measured.values, meter)
            else:
                deltas = fed(extension, site, hidden[:, :k], meter)
            slopes[k].append(derivative(deltas, measured.gradients, measured).double())
            curvatures[k].append(derivative(deltas, measured.curvature, measured).double().square())
    linear = site.activation is None
    return {k: _summary(slopes[k], torch.cat(curvatures[k]), linear) for k in sizes}


def _summary(halves: Sequence[Tensor], curvature: Tensor, linear: bool) -> Prediction | None:
    slope = torch.cat(list(halves))
    if not bool((slope != 0).any()):
        return None
    mean = float(slope.mean())
    error = float(slope.std()) / math.sqrt(len(slope))
    if linear:
        # Learned on one half and measured on the other, a full-rank linear map gives tr(M2^T A^-1 M1) both ways: the
        # halves' means are nearly one number, and pooling them as independent would overstate t by up to sqrt 2.
        error = sum(float(half.std()) / math.sqrt(len(half)) for half in halves) / len(halves)
    t = mean / error if error > 0 else math.copysign(math.inf, mean)
    bend = float(curvature.mean())
    gain = mean * abs(mean) / (2 * bend) if bend > 0 else 0.0
    return Prediction(mean, t, 0.5 * math.erfc(t / math.sqrt(2)), gain)
