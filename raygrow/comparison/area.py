"""Area under the curve of score against the logarithm of training FLOPs: how good an arm is at any budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """One network of a curve. ``loss`` chooses among them, ``score`` is what it is worth; either may be missing."""

    train_flops: float
    flops_per_example: float
    loss: float | None
    score: float | None


def best_so_far(curve: Sequence[Step]) -> list[tuple[float, float]]:
    """Training FLOPs from which on a better network is there, and its score; better is the lower validation loss."""
    found: list[tuple[float, float]] = []
    lowest = math.inf
    for step in sorted(curve, key=lambda step: step.train_flops):
        if step.loss is None or step.score is None or not math.isfinite(step.loss) or step.loss >= lowest:
            continue
        lowest = step.loss
        found.append((step.train_flops, step.score))
    return found


def common_bounds(curves: Sequence[Sequence[Step]]) -> tuple[float, float] | None:
    """The training FLOPs between which curves can be compared.

    From the first at which every arm with more than one network has one, to the last of the arm that spent least. A net
    that is trained once and delivered does not narrow them.

    Returns:
        None where nothing lies between.
    """
    firsts, lasts = [], []
    for curve in curves:
        spent = sorted(step.train_flops for step in curve if step.train_flops > 0)
        if not spent:
            return None
        if len(curve) > 1:
            firsts.append(spent[0])
        lasts.append(spent[-1])
    if not firsts or min(lasts) <= max(firsts):
        return None
    return max(firsts), min(lasts)


def area(curve: Sequence[Step], low: float, high: float) -> float:
    """Mean over log training FLOPs in [low, high] of the best score so far, a step function; 0 before the first network."""
    steps = best_so_far(curve)
    total = 0.0
    for i, (begin, score) in enumerate(steps):
        end = steps[i + 1][0] if i + 1 < len(steps) else math.inf
        left, right = max(begin, low), min(end, high)
        if right > left:
            total += score * math.log(right / left)
    return total / math.log(high / low)
