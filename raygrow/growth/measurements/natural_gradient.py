"""How long the natural gradient of the existing weights is, and the metric that says so."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import final

from raygrow.growth.bottleneck import Residuals
from raygrow.growth.measurements.base import AbstractMeasurement, Subject
from raygrow.growth.meter import Factor, Meter

FISHER_RIDGE = 1e-3
"""Ridge of the output Fisher, relative to its mean eigenvalue (growth_math 1.5)."""


@final
class NaturalGradient(AbstractMeasurement):
    """eta = g^T F^-1 g of the whole network, with K-FAC's Fisher (Mitchell et al. 2023; growth_math 3).

    Sum over nodes of tr(S_o^-1 C A^-1 C^T) with C = E[G b1^T] and A = E[b1 b1^T]: about twice the decrease of the loss that
    existing weights have still in them. In the units of the loss, and the same for every move.
    """

    name = "natural_gradient"
    curved = True
    differentiates = False

    def __init__(self) -> None:
        self._eta: float | None = None

    def measure(self, subject: Subject) -> Mapping[int, float]:
        if self._eta is None:
            residuals, meter = subject.residuals, subject.meter
            nodes = [node.name for node in residuals.fold.arch.nodes[1:]]
            self._eta = sum(existing_score(residuals, node, meter) for node in nodes)
        return dict.fromkeys(subject.moves, self._eta)


def existing_score(residuals: Residuals, node: str, meter: Meter) -> float:
    """eta of the weights into one node. C A^-1 C^T = E[G (G - G_perp)^T], what the regression follows of G.

    Positions count as many times as there are, as in the Fisher of convolutions (Grosse and Martens 2016).
    """
    g = residuals.fold.gradients[node]
    explained = meter.mm(g.T, g - residuals.perp_of(node)).double() / len(g)
    score = meter.apply_inverse(output_fisher(residuals, node, meter), explained).trace()
    return prod(residuals.fold.arch.by_name[node].grid) * float(score)


def output_fisher(residuals: Residuals, node: str, meter: Meter) -> Factor:
    """Of S_o = E[r r^T] with r the curvature samples at a node: the Fisher metric, not that of the gradients G.

    For cross-entropy the generalised Gauss-Newton matrix is the Fisher matrix; for the squared error it is that of a
    Gaussian of variance one half, so that eta is in the units of the loss in both tasks.
    """
    r = residuals.fold.curvature[node]
    gram = meter.mm(r.T, r).double() / len(r)
    return meter.factor(gram, FISHER_RIDGE * float(gram.diagonal().mean()))
