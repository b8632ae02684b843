"""AutoGrow: deeper by the calendar, until depth no longer helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from raygrow.strategies.base import AbstractStrategy, Evidence, Outcome, Proposal, Situation, State, Verdict
from raygrow.strategies.sizes import DEPTH, next_layer


@final
@dataclass(frozen=True, kw_only=True)
class AutoGrow(AbstractStrategy):
    """A layer every so many rounds while held-out accuracy rises (Wen et al., KDD 2020; growth_math 3).

    Layers come where they make the network deeper, at these places in turn, in the size nearest to ``units``. Growth stops
    for good once accuracy rose by less than ``threshold`` over ``patience`` rounds. Accuracy (regression: R2) is that on
    ``search``: validation is for verdicts alone. ``growth.patience`` counts rounds between growths too: set it above
    ``every``.

    The published rule has no control: what is probed is accepted. As for every strategy, what does not gain its price
    against the control is rejected all the same.
    """

    predicts = False
    measures = (DEPTH,)

    kind: Literal["autogrow"] = "autogrow"
    every: int = 1
    """K, rounds from one layer to the next, at least 1."""
    patience: int = 3
    """J, rounds over which accuracy must rise, at least ``every``."""
    threshold: float = 0.05
    """Least rise, percentage points (of R2 in regression); 0 or more."""
    units: int = 16
    """Units wanted in a layer, at least 1; the nearest size on offer is taken."""

    def __post_init__(self) -> None:
        if not (1 <= self.every <= self.patience and self.units >= 1):
            got = f"{self.every}, {self.patience} and {self.units}"
            raise ValueError(f"`1 <= every <= patience` and `units >= 1` must hold, but got {got}")
        if not self.threshold >= 0:
            raise ValueError(f"`threshold >= 0` must hold, but got {self.threshold}")

    def initial_state(self, constant_loss: float) -> State:
        return {"accuracy": [], "layers": 0, "stopped": False}

    def observe(self, state: State, proposals: Sequence[Proposal], situation: Situation) -> State:
        heard = [*state["accuracy"], situation.search_metric][-(self.patience + 1) :]
        idle = len(heard) > self.patience and 100 * (heard[-1] - heard[0]) < self.threshold
        return {**state, "accuracy": heard, "stopped": bool(state["stopped"] or idle)}

    def shortlist(
        self, proposals: Sequence[Proposal], situation: Situation, state: State, rng: np.random.Generator
    ) -> tuple[Proposal, ...]:
        if state["stopped"] or (situation.round - 1) % self.every:
            return ()
        return next_layer(proposals, self.units, state["layers"])

    def judge(self, evidence: Evidence, situation: Situation, state: State) -> Verdict:
        return Verdict(True, None, None, f"round {situation.round} adds a layer, and accuracy still rises")

    def learn(self, state: State, outcomes: Sequence[Outcome], situation: Situation) -> State:
        return {**state, "layers": state["layers"] + len(outcomes)}
