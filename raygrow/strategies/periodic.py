"""Baseline: grow by the calendar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from raygrow.strategies.base import AbstractStrategy, Evidence, Proposal, Situation, State, Verdict


@final
@dataclass(frozen=True, kw_only=True)
class Periodic(AbstractStrategy):
    """Every so many rounds, the next site in turn, whatever the evidence says (the schedule most growth papers use)."""

    predicts = False

    kind: Literal["periodic"] = "periodic"
    every: int = 1
    """Rounds from one growth to the next, at least 1."""
    units: int = 8
    """Units wanted a growth, at least 1; the nearest size on offer is taken."""

    def __post_init__(self) -> None:
        if self.every < 1 or self.units < 1:
            raise ValueError(f"`every >= 1` and `units >= 1` must hold, but got {self.every} and {self.units}")

    def shortlist(
        self, proposals: Sequence[Proposal], situation: Situation, state: State, rng: np.random.Generator
    ) -> tuple[Proposal, ...]:
        # A calendar of growth: what saves FLOPs has no turn.
        proposals = [p for p in proposals if p.added_flops > 0]
        if (situation.round - 1) % self.every or not proposals:
            return ()
        sites = sorted({(p.move, p.site) for p in proposals})
        turn = sites[((situation.round - 1) // self.every) % len(sites)]
        there = [p for p in proposals if (p.move, p.site) == turn]
        return (min(there, key=lambda p: (abs(p.units - self.units), p.id)),)

    def judge(self, evidence: Evidence, situation: Situation, state: State) -> Verdict:
        return Verdict(True, None, None, f"round {situation.round} is a growth round")
