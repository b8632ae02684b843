"""How much new units lengthen the natural gradient."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import final

import torch
from torch import Tensor

from raygrow.growth.measurements.base import AbstractMeasurement, Subject
from raygrow.growth.measurements.natural_gradient import output_fisher
from raygrow.growth.meter import Factor
from raygrow.growth.rows import REFIT_RIDGE, ridge_for


@final
class NaturalExpansion(AbstractMeasurement):
    """Natural expansion score delta eta' of new units (Mitchell, Mundt and Kersting, "Self-Expanding Neural Networks", 2023).

    delta eta' = sum over targets of tr(S_o^-1 C A_p^-1 C^T), with a_p the values of the units as the member's initializer
    begins their fan-in (of an edge: the values it reads), C = E[G_perp a_p^T] and A_p = E[a_p a_p^T]. A lower bound on what
    they add to eta = g^T F^-1 g (growth_math 3): about twice the decrease of the loss that they promise, in its units,
    whatever their scale and fan-out. Units that repeat existing ones score 0.
    """

    name = "natural_expansion"
    curved = True
    differentiates = False

    def __init__(self) -> None:
        self._fisher: dict[str, Factor] = {}

    def measure(self, subject: Subject) -> Mapping[int, float]:
        if subject.site.activation is None:
            (target,) = subject.site.targets
            score = self.of_columns(subject, subject.edge_rows(), target).sum()
            return dict.fromkeys(subject.moves, float(score))
        # The units of a smaller size are the first of a larger one.
        most = max(subject.moves)
        read = subject.read_by(subject.extensions[most])
        each = [self.of_columns(subject, rows, target).view(most, -1).sum(1) for target, rows in read.items()]
        total = torch.stack(each).sum(0).cumsum(0)
        return {size: float(total[size - 1]) for size in subject.moves}

    def of_columns(self, subject: Subject, values: Tensor, target: str) -> Tensor:
        """What each column of rows [rows, m] that a target may read adds to the score of those before it, [m].

        With A_p = L L^T and S_o = R R^T the score is the squared length of L^-1 C^T R^-T, whose first rows are those of the
        first columns alone. Positions count as many times as there are, as in the Fisher of convolutions (Grosse and Martens
        2016).
        """
        meter, residuals = subject.meter, subject.residuals
        if target not in self._fisher:
            self._fisher[target] = output_fisher(residuals, target, meter)
        gram = meter.mm(values.T, values).double() / len(values)
        ridge = ridge_for(float(gram.diagonal().sum()), len(gram), len(values), REFIT_RIDGE)
        white = meter.apply_root(meter.factor(gram, ridge), residuals.cross(values, target).double())
        score = meter.apply_root(self._fisher[target], white.T).square().sum(0)
        return prod(residuals.fold.arch.by_name[target].grid) * score
