"""Baseline: grow anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from raygrow.strategies.base import AbstractStrategy, Evidence, Proposal, Situation, State, Verdict


@final
@dataclass(frozen=True, kw_only=True)
class RandomStrategy(AbstractStrategy):
    """Probes moves drawn uniformly and takes any that gains more than its price: what a strategy must beat."""

    predicts = False

    kind: Literal["random"] = "random"

    def shortlist(
        self, proposals: Sequence[Proposal], situation: Situation, state: State, rng: np.random.Generator
    ) -> tuple[Proposal, ...]:
        order = rng.permutation(len(proposals))[: situation.candidates]
        return tuple(proposals[i] for i in order)

    def judge(self, evidence: Evidence, situation: Situation, state: State) -> Verdict:
        return Verdict(True, None, None, "drawn at random")
