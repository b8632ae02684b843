"""Firefly: grow what lowers the loss most for what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from raygrow.strategies.base import AbstractStrategy, Evidence, Proposal, Situation, State, Verdict

SCORE = "integrated_gradient"


@final
@dataclass(frozen=True, kw_only=True)
class Firefly(AbstractStrategy):
    """Greedy by integrated gradient: split, widen or add, whatever promises most per cost (Wu et al., NeurIPS 2020).

    Every move is scored by the decrease of the loss along its new weights; the best size of every place, and of the places
    those of the largest decrease per added FLOP are probed. Whether a wider node begins by splitting its units or by new ones
    is the initializer's affair (``firefly`` compares them by the same score); a new node is always new.

    The published rule has no control, only a budget: what is probed is accepted. As for every strategy, what does not gain its
    price against the control is rejected all the same.
    """

    predicts = False
    measures = (SCORE,)

    kind: Literal["firefly"] = "firefly"

    def shortlist(
        self, proposals: Sequence[Proposal], situation: Situation, state: State, rng: np.random.Generator
    ) -> tuple[Proposal, ...]:
        best: dict[tuple[str, str], Proposal] = {}
        for proposal in sorted(proposals, key=lambda p: (-_per_flop(p), p.id)):
            if _per_flop(proposal) > 0:
                best.setdefault((proposal.move, proposal.site), proposal)
        return tuple(best.values())[: situation.candidates]

    def judge(self, evidence: Evidence, situation: Situation, state: State) -> Verdict:
        score, flops = evidence.proposal.measurements[SCORE], evidence.proposal.added_flops
        reason = f"lowers the loss by {score:.4g} along its new weights, at {flops} FLOPs"
        return Verdict(True, score, 0.0, reason)


def _per_flop(proposal: Proposal) -> float:
    return proposal.measurements.get(SCORE, 0.0) / max(proposal.added_flops, 1)
