"""What new units do to the loss on the way from nothing to their amplitude."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from raygrow.architecture import AbstractMove
from raygrow.growth.backpropagation import backpropagate
from raygrow.growth.measurements.base import AbstractMeasurement, Subject
from raygrow.growth.prediction import derivative
from raygrow.growth.statistics import Fold, picked
from raygrow.nn import Extension, Network, graft

POINTS = (1 / 6, 3 / 6, 5 / 6)
"""Where the gradient is taken between 0 and the whole amplitude: the midpoint rule of three."""


@final
class IntegratedGradient(AbstractMeasurement):
    """Decrease of the loss along a move's change, by the integrated gradient of its amplitude (Wu et al., NeurIPS 2020).

    With delta what the move adds to the pre-activations of its targets and e its amplitude, the score of Firefly is
    e* |s|, s the mean of dloss/de at three points between 0 and e*: what the loss loses on the way, in its units, but for an
    error of third order. e* is one Newton step along delta at e = 0, with the generalised Gauss-Newton curvature, so that
    the scale at which an initializer begins is of no account. Existing weights that an initializer rewrites (a split) are
    part of delta. 0 where delta does not descend; undefined for offspring that leave the function as it is, whose worth is
    of second order.
    """

    name = "integrated_gradient"
    curved = True

    def measure(self, subject: Subject) -> Mapping[int, float]:
        found: dict[int, float] = {}
        for size, extension in subject.extensions.items():
            activation = subject.site.activation
            if extension.rewritten and activation and subject.initializer.preserves_function(activation):
                continue
            found[size] = self._decrease(subject, _change(subject, subject.moves[size], extension))
        return found

    def _decrease(self, subject: Subject, delta: Mapping[str, Tensor]) -> float:
        passed, fold, meter = subject.passed, subject.residuals.fold, subject.meter
        looked = _looked_at(delta, fold)
        slope = float(derivative(looked, fold.gradients, fold).double().mean())
        bend = float(derivative(looked, fold.curvature, fold).double().square().mean())
        if not slope > 0 or not bend > 0:
            return 0.0
        whole = slope / bend
        slopes = []
        for point in POINTS:
            step = {target: point * whole * added for target, added in delta.items()}
            meter.products += passed.network.tail_flops(step) * len(passed.sample)
            trace = passed.network.moved(passed.everything, step)
            at_output = passed.loss.descent(trace.output, passed.sample.y)
            gradients = backpropagate(passed.network, trace, at_output, list(delta), meter)
            slopes.append(float(derivative(looked, _looked_at(gradients, fold), fold).double().mean()))
        return whole * sum(slopes) / len(slopes)


def _looked_at(maps: Mapping[str, Tensor], fold: Fold) -> dict[str, Tensor]:
    """Rows at the positions that the statistics look at."""
    return {name: picked(found, fold.positions(fold.arch.by_name[name].grid)) for name, found in maps.items()}


@torch.no_grad()
def _change(subject: Subject, move: AbstractMove, extension: Extension) -> dict[str, Tensor]:
    """What the move adds to the pre-activations of its targets, with everything else as it is."""
    passed = subject.passed
    grown = graft(passed.network, move, extension)
    values = dict(passed.everything.values)
    if subject.site.activation is not None:
        node, _ = move.landing(passed.network.arch)
        before = _read(subject, grown, node, values)
        values[node] = next(step for step in grown.steps if step.name == node).function(before)
    return {
        target: _read(subject, grown, target, values) - passed.everything.preactivations[target]
        for target in subject.site.targets
    }


def _read(subject: Subject, network: Network, node: str, values: Mapping[str, Tensor]) -> Tensor:
    """Pre-activation of a node, given the values that it reads."""
    step = next(step for step in network.steps if step.name == node)
    total = step.bias.view(1, -1, *(1 for _ in network.arch.by_name[node].grid))
    for source, reading, weight, flops in step.reads:
        subject.meter.products += flops * len(subject.passed.sample)
        total = total + reading.read(values[source], weight)
    return total
