"""How much new units lengthen the natural gradient."""

from __future__ import annotations

from collections.abc import Mapping
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

    def __init__(self) -> None:
        self._fisher: dict[str, Factor] = {}

    def measure(self, subject: Subject) -> Mapping[int, float]:
        if subject.site.activation is None:
            read = subject.residuals.fold.reads(subject.site.sources).matrix[:, :-1]
            return dict.fromkeys(subject.moves, float(self._of_each(subject, read).sum()))
        # The units of a smaller size are the first of a larger one.
        hidden = subject.hidden(subject.extensions[max(subject.moves)])
        total = self._of_each(subject, hidden).cumsum(0)
        return {size: float(total[size - 1]) for size in subject.moves}

    def _of_each(self, subject: Subject, values: Tensor) -> Tensor:
        """What each unit adds to the score of those before it, for values [n, k]; [k].

        With A_p = L L^T and S_o = R R^T the score is the squared length of L^-1 C^T R^-T, whose first rows are those of the
        first units alone.
        """
        meter, residuals = subject.meter, subject.residuals
        gram = meter.mm(values.T, values).double() / len(values)
        ridge = ridge_for(float(gram.diagonal().sum()), len(gram), len(values), REFIT_RIDGE)
        factor = meter.factor(gram, ridge)
        score = torch.zeros(len(gram), dtype=torch.float64, device=gram.device)
        for target in subject.site.targets:
            if target not in self._fisher:
                self._fisher[target] = output_fisher(residuals, target, meter)
            white = meter.apply_root(factor, residuals.cross(values, target).double())
            score += meter.apply_root(self._fisher[target], white.T).square().sum(0)
        return score
