"""How far to go along a direction: the amplitude with the least loss on examples no weight was fitted on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raygrow.growth.meter import Meter
from raygrow.nn import Network, Trace
from raygrow.nn.losses import AbstractLoss

COARSE = tuple(4.0**e for e in range(-12, 5))

SCOUTS, MAP_SCOUTS = 64, 32
"""Examples that find the order of magnitude, of vectors and of maps; all of them then decide."""

NOTICEABLE = 1e-4
"""Share of the loss: what changes it by less, on average over examples and whatever the sign, cannot lower it by more."""

CERTAIN = 3.0
"""Standard errors by which scouts must see the loss rise to rule a scale out."""

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
            # Of the shape that ``losses`` computes it in, and so the same bits.
            self._before = float(
                self.loss.per_example(self.trace.output.unsqueeze(0), self.y).mean(dtype=torch.float64)
            )
        return self._before

    def move(self, node: str, delta: Tensor, meter: Meter) -> None:
        """Follow a change of the weights into ``node`` that adds ``delta`` to its pre-activation."""
        meter.products += self.network.tail_flops({node: delta}) * len(self.y)
        self.trace = self.network.moved(self.trace, {node: delta})
        self._before = None

    def losses(self, scales: tuple[float, ...], deltas: Mapping[str, Tensor], meter: Meter) -> list[float]:
        """Mean loss after adding each scale times the deltas; infinite where it overflows."""
        beside = self._before is None
        rows = self._rows(self.trace, self.y, scales, deltas, meter, beside=beside)
        found: list[float] = rows.mean(1, dtype=torch.float64).tolist()
        if beside:
            # Once, beside others: a pass of its own takes as many calls as this one.
            self._before = found.pop(0)
        return [loss if loss < math.inf else math.inf for loss in found]

    def scouted(
        self, scales: tuple[float, ...], deltas: Mapping[str, Tensor], meter: Meter, examples: int
    ) -> tuple[Tensor, Tensor]:
        """Loss of each of the first ``examples``, [m], and its change by each scale times the deltas, [scales, m]."""
        some = {node: delta[:examples] for node, delta in deltas.items()}
        rows = self._rows(self.trace.head(examples), self.y[:examples], scales, some, meter, beside=True)
        return rows[0], rows[1:] - rows[0]

    def _rows(
        self,
        trace: Trace,
        y: Tensor,
        scales: tuple[float, ...],
        deltas: Mapping[str, Tensor],
        meter: Meter,
        *,
        beside: bool,
    ) -> Tensor:
        """Loss of every example after adding each scale times the deltas, [scales, n].

        Args:
            beside: put that of the network as it is before them.
        """
        n = y.shape[0]
        meter.products += self.network.tail_flops(deltas) * n * len(scales)
        at_once = max(1, ROWS_AT_ONCE // n) if self.network.arch.plain else 1
        like = trace.output
        found: list[Tensor] = []
        for start in range(0, len(scales), at_once):
            part = torch.tensor(scales[start : start + at_once], dtype=like.dtype, device=like.device)
            outputs = self.network.tail(trace, deltas, part)
            if beside and start == 0:
                outputs = torch.cat([like.unsqueeze(0), outputs])
            found.append(self.loss.per_example(outputs, y))
        return found[0] if len(found) == 1 else torch.cat(found)


# Numbers alone come out of it, and calls are what it takes: less each without autograd's bookkeeping.
@torch.inference_mode()
def line_search(search: Searched, deltas: Mapping[str, Tensor], meter: Meter) -> LineSearch:
    """argmin over {0} and 2^-24 .. 2^8 (and on, while it improves) of the loss after adding scale * delta (growth_math 1.4).

    A few examples try the powers of 4. Where they see the loss fall, all of them compare that power and the powers of 2 beside
    it; otherwise, and where that did not lower it, they compare the powers of 4 that could (``_possible``). From the best they
    walk on by powers of 2 while the loss falls: the same answer as the whole grid where the loss has one minimum along the ray.

    Args:
        deltas: additions to pre-activations by node, [n, size].
    """
    scouts = SCOUTS if search.network.arch.plain else MAP_SCOUTS
    losses, changes = search.scouted(COARSE, deltas, meter, scouts)
    tried: dict[float, float] = {}

    def compare(scales: Iterable[float]) -> float:
        """Of all that was tried the scale with the least loss, after trying these."""
        fresh = tuple(scale for scale in scales if scale not in tried)
        if fresh:
            tried.update(zip(fresh, search.losses(fresh, deltas, meter), strict=True))
        return min(tried, key=tried.__getitem__)

    guess = _promising(losses, changes)
    best = 0.0 if guess is None else compare((guess / 2, guess, guess * 2))
    if guess is None or not tried[best] < search.before:
        best = compare(_possible(losses, changes) or COARSE)
    while tried[best] < search.before and not {best / 2, best * 2} <= tried.keys():
        best = compare((best / 2, best * 2))
    drop = search.before - tried[best]
    return LineSearch(best, drop) if drop > 0 else LineSearch(0.0, 0.0)


def _promising(losses: Tensor, changes: Tensor) -> float | None:
    """The power of 4 with the least loss, if that is noticeably less than without a change."""
    before, *means = torch.cat([losses.unsqueeze(0), changes]).mean(1, dtype=torch.float64).tolist()
    falls = [(-mean, scale) for mean, scale in zip(means, COARSE, strict=True) if -mean > NOTICEABLE * before]
    return max(falls)[1] if falls else None


def _possible(losses: Tensor, changes: Tensor) -> tuple[float, ...]:
    """The powers of 4 that may lower the loss of all examples, as far as these can tell.

    One that hardly changes the loss of any cannot lower their mean, and what tells such changes apart is rounding. One whose
    mean change is more than ``CERTAIN`` standard errors above 0 raises it.
    """
    noticed = changes.abs().mean(1) > NOTICEABLE * losses.mean()
    allowed = changes.mean(1) <= CERTAIN * changes.std(1) / math.sqrt(len(losses))
    return tuple(scale for scale, possible in zip(COARSE, (noticed & allowed).tolist(), strict=True) if possible)
