"""FRAGrow: deeper by a calendar that slows down as the network overfits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from raygrow.strategies.base import AbstractStrategy, Evidence, Outcome, Proposal, Situation, State, Verdict
from raygrow.strategies.sizes import DEPTH, next_layer


@final
@dataclass(frozen=True, kw_only=True)
class FraGrow(AbstractStrategy):
    """A layer each I = I_max / (1 + exp(4 - ORL)) rounds, ORL the overfitting risk level (FRAGrow; growth_math 3).

    ORL is accuracy on train less accuracy held out, in percentage points (regression: R2): the interval is I_max where the
    network overfits and a fiftieth of that at 0, but at most one layer comes a round. Train is read on the statistics
    examples, held out on ``search``. Layers come where they make the network deeper, at these places in turn, in the size
    nearest to ``units``. ``growth.patience`` counts rounds between growths too: set it above ``longest``.

    The published rule has no control: what is probed is accepted. As for every strategy, what does not gain its price
    against the control is rejected all the same.
    """

    predicts = False
    measures = (DEPTH,)

    kind: Literal["fragrow"] = "fragrow"
    longest: float = 4.0
    """I_max, rounds from one layer to the next where the network overfits; above 0."""
    units: int = 16
    """Units wanted in a layer, at least 1; the nearest size on offer is taken."""

    def __post_init__(self) -> None:
        if not (0 < self.longest < math.inf and self.units >= 1):
            raise ValueError(f"`longest > 0` and `units >= 1` must hold, but got {self.longest} and {self.units}")

    def initial_state(self, constant_loss: float) -> State:
        return {"last": 0, "layers": 0}

    def shortlist(
        self, proposals: Sequence[Proposal], situation: Situation, state: State, rng: np.random.Generator
    ) -> tuple[Proposal, ...]:
        if situation.round - state["last"] < self.interval(situation):
            return ()
        return next_layer(proposals, self.units, state["layers"])

    def judge(self, evidence: Evidence, situation: Situation, state: State) -> Verdict:
        waited, interval = situation.round - state["last"], self.interval(situation)
        return Verdict(
            True, float(waited), interval, f"a layer is due each {interval:.2g} rounds, and {waited} went by"
        )

    def learn(self, state: State, outcomes: Sequence[Outcome], situation: Situation) -> State:
        return {"last": situation.round, "layers": state["layers"] + 1} if outcomes else state

    def interval(self, situation: Situation) -> float:
        """Rounds from one layer to the next."""
        risk = 100 * (situation.train_metric - situation.search_metric)
        # R2 has no lower bound; far from its middle the curve is flat.
        return self.longest / (1 + math.exp(min(4 - risk, 700.0)))
