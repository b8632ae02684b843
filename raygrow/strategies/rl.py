"""Growth as sequential decisions: a contextual bandit with Thompson sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from raygrow.strategies.base import AbstractStrategy, Evidence, Outcome, Proposal, Situation, State, Verdict
from raygrow.strategies.features import FEATURES
from raygrow.strategies.screen import PRIOR_FACTOR

PREDICTION = FEATURES.index("predicted_gain")


@final
@dataclass(frozen=True, kw_only=True)
class Rl(AbstractStrategy):
    """Linear Thompson sampling over candidates, shared by all sites (Agrawal and Goyal 2013; growth_math 4c).

    A Gaussian posterior over the weights of a linear model of the realised gain, in units of the constant prediction's
    loss. Its prior trusts the prediction: weight 1 on what a probe makes of the predicted one-step gain (three times as
    much, before anything was probed; the screen's figure), 0 elsewhere. One draw a round ranks candidates
    by expected gain per added FLOP; those with a positive expected value are probed, and accepted when the realised value
    is positive. Every probed candidate updates the posterior.
    """

    kind: Literal["rl"] = "rl"
    prior_sd: float = 0.5
    """Standard deviation of each weight's prior. Above 0."""
    offset_scale: float = 0.02
    """How large a gain (in units of the constant prediction's loss) the features beside the prediction speak for. Above 0."""
    noise_sd: float = 0.01
    """tau, the spread of gains that the model does not explain, in the same units. Above 0."""

    def __post_init__(self) -> None:
        if not all(0 < scale < math.inf for scale in (self.prior_sd, self.offset_scale, self.noise_sd)):
            raise ValueError(
                f"`prior_sd`, `offset_scale` and `noise_sd` must be above 0 and finite, "
                f"but got {self.prior_sd}, {self.offset_scale} and {self.noise_sd}"
            )

    def initial_state(self, constant_loss: float) -> State:
        mean = np.zeros(len(FEATURES))
        mean[PREDICTION] = 1.0
        precision = np.eye(len(FEATURES)) / self.prior_sd**2
        return {"precision": precision.tolist(), "shift": (precision @ mean).tolist()}

    def shortlist(
        self, proposals: Sequence[Proposal], situation: Situation, state: State, rng: np.random.Generator
    ) -> tuple[Proposal, ...]:
        mean, factor = _posterior(state)
        # w = m + L^-T z has covariance (L L^T)^-1, the inverse of the precision.
        draw = mean + np.linalg.solve(factor.T, rng.standard_normal(len(mean)))
        scored: list[tuple[bool, float, str, Proposal]] = []
        for proposal in proposals:
            expected = float(draw @ self._scaled(proposal)) * situation.constant_loss
            value = expected - situation.price * proposal.added_flops
            if value > 0:
                # As moves are granted: those that save come first, by value; the others by gain per FLOP.
                saves = proposal.added_flops <= 0
                score = value if saves else expected / proposal.added_flops
                scored.append((not saves, -score, proposal.id, proposal))
        return tuple(proposal for *_, proposal in sorted(scored, key=lambda s: s[:3])[: situation.candidates])

    def judge(self, evidence: Evidence, situation: Situation, state: State) -> Verdict:
        charge = situation.price * evidence.proposal.added_flops
        value = evidence.gain - charge
        mean, _ = _posterior(state)
        expected = float(mean @ self._scaled(evidence.proposal)) * situation.constant_loss
        word = "above" if value > 0 else "not above"
        return Verdict(
            value > 0,
            value,
            0.0,
            f"gain {evidence.gain:+.4g} less price {charge:.4g} is {word} 0 (the policy expected a gain of {expected:+.4g})",
        )

    def learn(self, state: State, outcomes: Sequence[Outcome], situation: Situation) -> State:
        precision = np.asarray(state["precision"], dtype=np.float64)
        shift = np.asarray(state["shift"], dtype=np.float64)
        for outcome in outcomes:
            x = self._scaled(outcome.proposal)
            y = outcome.gain / situation.constant_loss
            variance = (outcome.gain_stderr / situation.constant_loss) ** 2 + self.noise_sd**2
            precision = precision + np.outer(x, x) / variance
            shift = shift + x * y / variance
        return {"precision": precision.tolist(), "shift": shift.tolist()}

    def _scaled(self, proposal: Proposal) -> NDArray[np.float64]:
        features = np.asarray(proposal.features, dtype=np.float64)
        x = self.offset_scale * features
        x[PREDICTION] = PRIOR_FACTOR * features[PREDICTION]
        return x


def _posterior(state: State) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of the weights and the Cholesky factor of their precision."""
    precision = np.asarray(state["precision"], dtype=np.float64)
    mean = np.linalg.solve(precision, np.asarray(state["shift"], dtype=np.float64))
    return np.asarray(mean, dtype=np.float64), np.asarray(np.linalg.cholesky(precision), dtype=np.float64)
