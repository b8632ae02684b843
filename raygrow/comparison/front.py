"""Pareto fronts of score, inference FLOPs and training FLOPs, and the volume that they dominate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raygrow.comparison.area import Step


def pareto_front(scores: Sequence[float], *costs: Sequence[float]) -> NDArray[np.bool_]:
    """Which points no other beats: at least as high a score at no higher cost, and better in one of them.

    Args:
        scores: higher is better.
        costs: one or more, lower is better; as long as ``scores``.
    """
    import moocore

    if not len(scores):
        return np.zeros(0, dtype=bool)
    points = np.column_stack([-np.asarray(scores, dtype=np.float64), *costs])
    found: NDArray[np.bool_] = moocore.is_nondominated(points, keep_weakly=True)
    return found


def common_box(curves: Sequence[Sequence[Step]]) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Ranges of inference and of training FLOPs within which volumes of one repetition are measured.

    From the least FLOPs of any network of any arm to twice the most, so that the dearest network counts too.

    Returns:
        None without a network that cost anything.
    """
    shown = [step for curve in curves for step in curve if _counts(step)]
    if not shown:
        return None
    inference, training = [step.flops_per_example for step in shown], [step.train_flops for step in shown]
    return (min(inference), 2 * max(inference)), (min(training), 2 * max(training))


def hypervolume(curve: Sequence[Step], box: tuple[tuple[float, float], tuple[float, float]]) -> float:
    """Share of the box that the networks of a curve dominate: scores in [0, 1], FLOPs by their logarithm.

    Exact (moocore; Fonseca, Paquete and Lopez-Ibanez 2006). A score below 0, that of an R2 worse than the mean's, dominates
    nothing.

    Args:
        box: as ``common_box`` gives it.
    """
    import moocore

    points = [
        (1 - min(float(step.score or 0.0), 1.0), _within(step.flops_per_example, box[0]), _within(step.train_flops, box[1]))
        for step in curve
        if _counts(step)
    ]  # fmt: skip
    inside = [point for point in points if max(point) < 1]
    return float(moocore.hypervolume(np.array(inside), ref=[1.0, 1.0, 1.0])) if inside else 0.0


def _counts(step: Step) -> bool:
    return step.score is not None and math.isfinite(step.score) and step.flops_per_example > 0 and step.train_flops > 0


def _within(value: float, bounds: tuple[float, float]) -> float:
    """Place of a figure between bounds by its logarithm, 0 to 1; below the lower one is 0."""
    return max(0.0, math.log(value / bounds[0]) / math.log(bounds[1] / bounds[0]))
