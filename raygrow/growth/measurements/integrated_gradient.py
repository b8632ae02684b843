"""What new units do to the loss on the way from nothing to their amplitude."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from raygrow.architecture import AbstractMove, forward_flops
from raygrow.growth.backpropagation import backpropagate
from raygrow.growth.measurements.base import AbstractMeasurement, Subject
from raygrow.growth.prediction import derivative
from raygrow.growth.statistics import CHUNK, picked
from raygrow.nn import Extension, Trace, graft

POINTS = (1 / 6, 3 / 6, 5 / 6)
"""Where the gradient is taken between 0 and the whole amplitude: the midpoint rule of three."""

ROUNDING = 1e3
"""Units of the last place, of values of order one, that a sum of cancelling terms may be off."""


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
    differentiates = False

    def measure(self, subject: Subject) -> Mapping[int, float]:
        found: dict[int, float] = {}
        for size, extension in subject.extensions.items():
            activation = subject.site.activation
            if extension.rewritten and activation and subject.initializer.preserves_function(activation):
                continue
            way = Way(subject, subject.moves[size], extension)
            found[size] = way.decrease()
        return found


class Way:
    """From a network to its graft, as a straight line in what the targets receive.

    Args:
        subject: where.
        move, extension: the graft.
    """

    def __init__(self, subject: Subject, move: AbstractMove, extension: Extension) -> None:
        self.subject, self.network = subject, subject.passed.network
        self.grown = graft(self.network, move, extension)
        self.node = None if subject.site.activation is None else move.landing(self.network.arch)[0]

    @torch.no_grad()
    def decrease(self) -> float:
        """Amplitude times the mean slope on the way."""
        whole = self.amplitude()
        if whole == 0:
            return 0.0
        # A step past the minimum may end above where it began.
        return max(whole * sum(self.slope(point * whole) for point in POINTS) / len(POINTS), 0.0)

    @torch.no_grad()
    def amplitude(self) -> float:
        """One Newton step from the start, by the positions looked at; 0 where the loss does not fall."""
        fold = self.subject.residuals.fold
        parts: dict[str, list[Tensor]] = {target: [] for target in self.subject.site.targets}
        for cut, _, change in self._pieces():
            for target, added in change.items():
                places = fold.positions(fold.arch.by_name[target].grid)
                parts[target].append(picked(added, None if places is None else places[cut]))
        deltas = {target: torch.cat(rows) for target, rows in parts.items()}
        peak = max(float(delta.abs().amax()) for delta in deltas.values())
        if peak <= ROUNDING * torch.finfo(next(iter(deltas.values())).dtype).eps:
            # Pairs that cancel add rounding errors; a step along those would be astronomical.
            return 0.0
        slope = float(derivative(deltas, fold.gradients, fold).double().mean())
        bend = float(derivative(deltas, fold.curvature, fold).double().square().mean())
        return slope / bend if slope > 0 and bend > 0 else 0.0

    @torch.no_grad()
    def slope(self, at: float) -> float:
        """-dloss/de, the mean over the examples, at this amplitude."""
        passed, meter, total = self.subject.passed, self.subject.meter, 0.0
        for cut, trace, change in self._pieces():
            y = passed.sample.y[cut]
            step = {target: at * added for target, added in change.items()}
            meter.products += self.network.tail_flops(step) * len(y)
            moved = self.network.moved(trace, step)
            at_output = passed.loss.descent(moved.output, y)
            found = backpropagate(self.network, moved, at_output, list(change), meter)
            total += sum(float((found[target] * added).sum(dtype=torch.float64)) for target, added in change.items())
        return total / len(passed.sample)

    def change(self, trace: Trace) -> dict[str, Tensor]:
        """What the graft adds to the pre-activations of its targets, [n, size, *grid], with everything else as it is."""
        values = dict(trace.values)
        if self.node is not None:
            before = self._read(self.node, values)
            values[self.node] = next(step for step in self.grown.steps if step.name == self.node).function(before)
        return {
            target: self._read(target, values) - trace.preactivations[target] for target in self.subject.site.targets
        }

    def _read(self, node: str, values: Mapping[str, Tensor]) -> Tensor:
        """Pre-activation of a node of the grown network, given the values that it reads."""
        step = next(step for step in self.grown.steps if step.name == node)
        total = step.bias.view(1, -1, *(1 for _ in self.grown.arch.by_name[node].grid))
        for source, reading, weight, flops in step.reads:
            self.subject.meter.products += flops * len(values[source])
            total = total + reading.read(values[source], weight)
        return total

    @cached_property
    def _of_all(self) -> dict[str, Tensor]:
        return self.change(self.subject.passed.trace)

    def _pieces(self) -> Iterator[tuple[slice, Trace, dict[str, Tensor]]]:
        """The statistics examples through the network as it is, and their change: of maps in chunks, anew each time."""
        passed = self.subject.passed
        if self.network.arch.plain:
            yield slice(None), passed.trace, self._of_all
            return
        for start in range(0, len(passed.sample), CHUNK):
            cut = slice(start, start + CHUNK)
            x = passed.sample.x[cut]
            self.subject.meter.products += forward_flops(self.network.arch) * len(x)
            trace = self.network.trace(x)
            yield cut, trace, self.change(trace)
