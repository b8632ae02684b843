"""Differences paired by repetition: an interval for their mean, a test of their symmetry about 0, and Holm over arms."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999
SEED = 20250117
"""Of the resampling: the same table gives the same interval."""


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Bootstrap interval of the mean, bias-corrected and accelerated (Efron 1987), at ``CONFIDENCE``.

    Args:
        values: one a repetition, finite.

    Returns:
        Lower and upper end; None for fewer than three values, and for equal ones, whose resamples say nothing of the spread.
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 3 or np.ptp(sample) <= 1e-12 * max(1.0, float(np.abs(sample).max())):
        return None
    with warnings.catch_warnings():
        # Resamples of few values may all lie on one side of their mean: the ends are then not numbers.
        warnings.simplefilter("ignore")
        found = stats.bootstrap(
            (sample,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="BCa",
            rng=np.random.default_rng(SEED),
        ).confidence_interval  # fmt: skip
    low, high = float(found.low), float(found.high)
    return (low, high) if np.isfinite(low) and np.isfinite(high) else None


def signed_rank(differences: Sequence[float]) -> float | None:
    """Two-sided p value of Wilcoxon's signed-rank test (Wilcoxon 1945; zeros as Pratt 1959 has them).

    Exact without ties up to 50 pairs, and with ties or zeros up to 13; a normal approximation beyond.

    Returns:
        None without pairs, 1 where all differences are 0.
    """
    # Differences of equal accuracies are 0 but for the last bits, which would break ties at random.
    rounded = np.round(np.asarray(differences, dtype=np.float64), 12)
    if len(rounded) == 0:
        return None
    if not rounded.any():
        return 1.0
    return float(stats.wilcoxon(rounded, zero_method="pratt").pvalue)


def least_p(pairs: int) -> float:
    """The smallest p value that the two-sided test can give: of ``pairs`` differences of one sign, without ties."""
    return min(1.0, 2.0 ** (1 - pairs))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number by Holm's step-down method (1979), in the same order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for step, i in enumerate(order):
        reached = max(reached, min(1.0, p_values[i] * (len(p_values) - step)))
        adjusted[i] = reached
    return adjusted
