"""Average ranks of arms over repetitions, whether they differ at all, and by how much they must (Demšar 2006)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks within each repetition, 1 for the highest score; equal scores share the mean of their ranks.

    Args:
        scores: [repetitions, arms].
    """
    found: NDArray[np.float64] = stats.rankdata(-np.round(scores, 12), axis=1)
    return found


def friedman(scores: NDArray[np.float64]) -> tuple[float, float] | None:
    """Friedman's chi-squared with its correction for ties, and its p value.

    Args:
        scores: [repetitions, arms].

    Returns:
        None for fewer than three arms or two repetitions. Arms that are equal everywhere give 0 and 1.
    """
    repetitions, arms = scores.shape
    if arms < 3 or repetitions < 2:
        return None
    table = np.round(scores, 12)
    if (table == table[:, :1]).all():
        return 0.0, 1.0
    found = stats.friedmanchisquare(*table.T)
    return float(found.statistic), float(found.pvalue)


def critical_difference(arms: int, repetitions: int, alpha: float) -> float:
    """Nemenyi's critical difference of average ranks (1963): the least at which two of all arms differ at level alpha.

    q sqrt(arms (arms + 1) / (6 repetitions)), where q is the quantile of the studentised range over sqrt(2).

    Args:
        arms: at least 2.
        repetitions: at least 1.
    """
    quantile = float(stats.studentized_range.ppf(1 - alpha, arms, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(arms * (arms + 1) / (6 * repetitions))


def groups(average: Mapping[str, float], difference: float) -> list[list[str]]:
    """The largest sets of two or more arms whose average ranks lie within ``difference``: the bars of the diagram."""
    order: Sequence[str] = sorted(average, key=lambda arm: (average[arm], arm))
    found: list[list[str]] = []
    reached = 0
    for i, first in enumerate(order):
        end = max(j for j in range(len(order)) if average[order[j]] - average[first] < difference or j == i) + 1
        # A set that ends where the one before ended lies within it.
        if end - i > 1 and end > reached:
            found.append(list(order[i:end]))
            reached = end
    return found
