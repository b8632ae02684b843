"""Baseline: a verdict that holds, on moves drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from raygrow.strategies.base import AbstractStrategy, Evidence, Proposal, Situation, State, Verdict, check_level
from raygrow.strategies.mdl import Mdl


@final
@dataclass(frozen=True, kw_only=True)
class Blind(AbstractStrategy):
    """``mdl``'s verdict on moves at sites drawn at random: against ``mdl``, what it is worth to know where to grow."""

    predicts = False

    kind: Literal["blind"] = "blind"
    alpha: float = 0.05
    """Chance of ever accepting a useless move, spent over the rounds; in (0, 1)."""

    def __post_init__(self) -> None:
        check_level(self.alpha)

    @property
    def level(self) -> float:
        return self.alpha

    def shortlist(
        self, proposals: Sequence[Proposal], situation: Situation, state: State, rng: np.random.Generator
    ) -> tuple[Proposal, ...]:
        # A site first, then a size of it: drawing proposals would favour sites with many sizes.
        sites = sorted({(p.move, p.site) for p in proposals})
        drawn = [sites[i] for i in rng.permutation(len(sites))[: situation.candidates]]
        chosen = []
        for place in drawn:
            there = [p for p in proposals if (p.move, p.site) == place]
            chosen.append(there[int(rng.integers(len(there)))])
        return tuple(chosen)

    def judge(self, evidence: Evidence, situation: Situation, state: State) -> Verdict:
        return Mdl(alpha=self.alpha).judge(evidence, situation, state)
