"""Natural expansion: grow where new units would lengthen the natural gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from raygrow.strategies.base import AbstractStrategy, Evidence, Proposal, Situation, State, Verdict

ADDED, ETA = "natural_expansion", "natural_gradient"


@final
@dataclass(frozen=True, kw_only=True)
class Senn(AbstractStrategy):
    """Self-expanding neural networks: the natural expansion score (Mitchell, Mundt and Kersting 2023; growth_math 3).

    eta = g^T F^-1 g is about twice the decrease of the loss that existing weights have in them, delta eta what new units add
    to it. A unit is worth adding where it raises eta by more than the share tau and by more than ``least``; k units where
    they do as k such in a row: ln(1 + delta eta / eta) > k ln(1 + tau) and delta eta > k least. Of every place the largest
    size that passes, of the places those of the largest delta eta are probed. Wider and deeper compare by the same score.

    The published rule has no control: what is probed is accepted. As for every strategy, what does not gain its price
    against the control is rejected all the same. The score is of the examples that the units were begun on: of what useless
    units add, outputs / examples each is chance.
    """

    predicts = False
    measures = (ADDED, ETA)

    kind: Literal["senn"] = "senn"
    tau: float = 0.01
    """Share of eta that each new unit must add, above 0."""
    least: float = 0.002
    """What each new unit must add to eta, in units of the constant prediction's loss; 0 or more."""

    def __post_init__(self) -> None:
        if not (0.0 < self.tau < math.inf and 0.0 <= self.least < math.inf):
            raise ValueError(f"`tau > 0` and `least >= 0` must hold, but got {self.tau} and {self.least}")

    def shortlist(
        self, proposals: Sequence[Proposal], situation: Situation, state: State, rng: np.random.Generator
    ) -> tuple[Proposal, ...]:
        largest: dict[tuple[str, str], Proposal] = {}
        for proposal in sorted(proposals, key=lambda p: (p.units, p.id)):
            score = proposal.measurements.get(ADDED)
            if score is not None and score > self._threshold(proposal, situation):
                largest[proposal.move, proposal.site] = proposal
        ranked = sorted(largest.values(), key=lambda p: (-p.measurements[ADDED], p.id))
        return tuple(ranked[: situation.candidates])

    def judge(self, evidence: Evidence, situation: Situation, state: State) -> Verdict:
        proposal = evidence.proposal
        score, threshold = proposal.measurements[ADDED], self._threshold(proposal, situation)
        eta = proposal.measurements[ETA]
        return Verdict(
            True,
            score,
            threshold,
            f"adds {score:.4g} to the natural gradient's squared length of {eta:.4g}, more than the {threshold:.4g} that "
            f"{max(proposal.units, 1)} units must",
        )

    def _threshold(self, proposal: Proposal, situation: Situation) -> float:
        """delta eta that so many units must exceed."""
        units = max(proposal.units, 1)
        # Beyond the reach of floats the relative test cannot be passed.
        relative = math.expm1(min(units * math.log1p(self.tau), 700.0)) * proposal.measurements[ETA]
        return max(relative, units * self.least * situation.constant_loss)
