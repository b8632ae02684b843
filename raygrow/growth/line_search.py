"""How far to go along a direction: the amplitude with the least loss on examples no weight was fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raygrow.growth.meter import Meter
from raygrow.nn import Network, Trace
from raygrow.nn.losses import AbstractLoss

COARSE = tuple(4.0**e for e in range(-12, 5))


@dataclass(frozen=True)
class LineSearch:
    """Where the loss was least.

    Attributes:
        scale: amplitude, 0 where no amplitude lowers the loss.
        drop: decrease of the mean loss there, >= 0.
    """

    scale: float
    drop: float


@torch.no_grad()
def line_search(
    network: Network, trace: Trace, y: Tensor, loss: AbstractLoss, deltas: Mapping[str, Tensor], meter: Meter
) -> LineSearch:
    """argmin over {0} and 2^-24 .. 2^8 (and on, while it improves) of the loss after adding scale * delta (growth_math 1.4).

    The powers of 4 first, then the two powers of 2 beside the best of them: half the evaluations of the whole grid, and the
    same answer where the loss has one minimum along the ray.

    Args:
        trace: forward pass of ``network`` on the search examples.
        y: their labels or targets.
        deltas: additions to pre-activations by node, [n, size].
    """
    per_scale = network.tail_flops(deltas) * len(y)

    def losses(scales: tuple[float, ...]) -> Tensor:
        meter.products += per_scale * len(scales)
        outputs = network.tail(trace, deltas, torch.tensor(scales, dtype=y_dtype, device=trace.output.device))
        return loss.per_example(outputs, y).double().mean(1)

    y_dtype = trace.output.dtype
    before = float(loss.per_example(trace.output, y).double().mean())
    scale, best = _least(COARSE, losses(COARSE))
    beside = (scale / 2, scale * 2)
    finer = _least(beside, losses(beside))
    if finer[1] < best:
        scale, best = finer
    while scale >= COARSE[-1]:
        further = float(losses((2 * scale,)).nan_to_num(nan=torch.inf)[0])
        if not further < best:
            break
        scale, best = 2 * scale, further
    return LineSearch(scale, before - best) if best < before else LineSearch(0.0, 0.0)


def _least(scales: tuple[float, ...], table: Tensor) -> tuple[float, float]:
    table = table.nan_to_num(nan=torch.inf)
    at = int(table.argmin())
    return scales[at], float(table[at])
