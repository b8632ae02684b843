"""How many units there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from raygrow.growth.measurements.base import AbstractMeasurement, Subject


@final
class Width(AbstractMeasurement):
    """Units (channels) of the node that a move widens; undefined for others."""

    name = "width"
    differentiates = False

    def measure(self, subject: Subject) -> Mapping[int, float]:
        node = subject.site.node
        return {} if node is None else dict.fromkeys(subject.moves, float(subject.residuals.fold.arch.size(node)))
