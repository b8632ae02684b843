"""How many of a layer's directions its examples make use of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from raygrow.growth.measurements.base import AbstractMeasurement, Subject
from raygrow.growth.meter import Meter
from raygrow.growth.statistics import picked

LEAST = 0.01
"""Singular values of H / sqrt(n) up to this do not count."""


@final
class EffectiveDimension(AbstractMeasurement):
    """phi = #{singular values of H / sqrt(n) above 0.01} / M of the node that a move widens, in [0, 1].

    H are the values of its M units, one row an example and position looked at (Maile et al., "When, where, and how to add
    new neurons to ANNs", AutoML 2022). 1: every unit says something of its own; below: some repeat others, or nothing.
    Undefined for moves that widen no node.
    """

    name = "effective_dimension"
    differentiates = False

    def measure(self, subject: Subject) -> Mapping[int, float]:
        node, fold = subject.site.node, subject.residuals.fold
        if node is None:
            return {}
        rows = picked(fold.values[node], fold.positions(fold.arch.by_name[node].value_grid))
        return dict.fromkeys(subject.moves, effective_dimension(rows, subject.meter))


def effective_dimension(rows: Tensor, meter: Meter) -> float:
    """phi of the values of units, [rows, units]; the squares of the singular values are eigenvalues of the Gram matrix."""
    n, units = rows.shape
    # Squares of 0.01 beside those of values of order one are beyond float32.
    wide = rows.double()
    gram = meter.mm(wide.T, wide) if units <= n else meter.mm(wide, wide.T)
    values, _ = meter.eigh(gram / n)
    return int((values > LEAST**2).sum()) / units
