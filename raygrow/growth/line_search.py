"""How far to go along a direction: the amplitude with the least loss on examples no weight was fitted on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raygrow.growth.meter import Meter
from raygrow.nn import Network
from raygrow.nn.losses import AbstractLoss

COARSE = tuple(4.0**e for e in range(-12, 5))

SCOUTS, MAP_SCOUTS = 64, 32
"""Examples that find the order of magnitude, of vectors and of maps; all of them then decide."""

ROWS_AT_ONCE = 2048
"""Examples times scales of vectors in one pass; of maps one scale at a time. What is much larger than the cache takes several
times as long a row."""


@dataclass(frozen=True)
class LineSearch:
    """Where the loss was least.

    Attributes:
        scale: amplitude, 0 where no amplitude lowers the loss.
        drop: decrease of the mean loss there, >= 0.
    """

    scale: float
    drop: float


class Searched:
    """The search examples through a network, a forward pass that follows the network's updates.

    Attributes:
        trace: values and pre-activations as the network is now.
        y: labels [n] or targets [n, t].
    """

    def __init__(self, network: Network, x: Tensor, y: Tensor, loss: AbstractLoss, meter: Meter) -> None:
        self.network, self.y, self.loss = network, y, loss
        with torch.no_grad():
            self.trace = network.trace(x)
        meter.products += x.shape[0] * network.flops
        self._before: float | None = None

    @property
    def before(self) -> float:
        """Mean loss as the network is now."""
        if self._before is None:
            (self._before,) = self._means(self.trace.output.unsqueeze(0), self.y)
        return self._before

    def move(self, node: str, delta: Tensor, meter: Meter) -> None:
        """Follow a change of the weights into ``node`` that adds ``delta`` to its pre-activation."""
        meter.products += self.network.tail_flops({node: delta}) * len(self.y)
        self.trace = self.network.moved(self.trace, {node: delta})
        self._before = None

    def losses(
        self, scales: tuple[float, ...], deltas: Mapping[str, Tensor], meter: Meter, examples: int | None = None
    ) -> list[float]:
        """Mean loss after adding each scale times the deltas, on the first ``examples``; infinite where it overflows."""
        trace, y = self.trace, self.y
        if examples is not None and examples < len(y):
            trace, y = trace.head(examples), y[:examples]
            deltas = {node: delta[:examples] for node, delta in deltas.items()}
        n = y.shape[0]
        meter.products += self.network.tail_flops(deltas) * n * len(scales)
        at_once = max(1, ROWS_AT_ONCE // n) if self.network.arch.plain else 1
        like = trace.output
        found: list[float] = []
        for start in range(0, len(scales), at_once):
            part = torch.tensor(scales[start : start + at_once], dtype=like.dtype, device=like.device)
            outputs = self.network.tail(trace, deltas, part)
            if self._before is None and examples is None:
                # Once, beside others: a pass of its own takes as many calls as this one.
                outputs = torch.cat([like.unsqueeze(0), outputs])
                self._before, *means = self._means(outputs, y)
            else:
                means = self._means(outputs, y)
            found += means
        return [loss if loss < math.inf else math.inf for loss in found]

    def _means(self, outputs: Tensor, y: Tensor) -> list[float]:
        """Mean loss of each of several outputs, [g, n, outputs]."""
        found: list[float] = self.loss.per_example(outputs, y).mean(1, dtype=torch.float64).tolist()
        return found


# Numbers alone come out of it, and calls are what it takes: less each without autograd's bookkeeping.
@torch.inference_mode()
def line_search(search: Searched, deltas: Mapping[str, Tensor], meter: Meter) -> LineSearch:
    """argmin over {0} and 2^-24 .. 2^8 (and on, while it improves) of the loss after adding scale * delta (growth_math 1.4).

    A few examples try the powers of 4 and find the order of magnitude. All of them then compare that power and the powers of
    2 beside it, and walk on while the loss falls: the same answer as the whole grid where the loss has one minimum along the
    ray. Where nothing beside the first guess lowers the loss, all examples try the whole coarse grid.

    Args:
        deltas: additions to pre-activations by node, [n, size].
    """
    scouts = SCOUTS if search.network.arch.plain else MAP_SCOUTS
    if len(search.y) > 2 * scouts:
        guess, _ = _least(COARSE, search.losses(COARSE, deltas, meter, scouts))
        beside = (guess / 2, guess, guess * 2)
        found = _least(beside, search.losses(beside, deltas, meter))
        if found[1] < search.before:
            return _walk(search, deltas, found, guess, meter)
    coarse = _least(COARSE, search.losses(COARSE, deltas, meter))
    finer = _least(around := (coarse[0] / 2, coarse[0] * 2), search.losses(around, deltas, meter))
    found = finer if finer[1] < coarse[1] else coarse
    return _walk(search, deltas, found, found[0], meter)


def _walk(
    search: Searched,
    deltas: Mapping[str, Tensor],
    found: tuple[float, float],
    guess: float,
    meter: Meter,
) -> LineSearch:
    """Go on by powers of 2 while the loss falls: away from the guess, or beyond the grid."""
    scale, best = found
    factor = 0.5 if scale < guess else 2.0
    while scale != guess or scale >= COARSE[-1]:
        further = search.losses((factor * scale,), deltas, meter)[0]
        if not further < best:
            break
        scale, best = factor * scale, further
    return LineSearch(scale, search.before - best) if best < search.before else LineSearch(0.0, 0.0)


def _least(scales: tuple[float, ...], losses: list[float]) -> tuple[float, float]:
    at = min(range(len(losses)), key=losses.__getitem__)
    return scales[at], losses[at]
