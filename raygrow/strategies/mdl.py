"""Minimum description length: grow when the labels become shorter to code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from raygrow.strategies.base import (
    AbstractStrategy,
    Evidence,
    Outcome,
    Proposal,
    Situation,
    State,
    Verdict,
    check_level,
    spent,
)
from raygrow.strategies.screen import initial_state, learn, screened


def switch_code(shorter: Sequence[float]) -> float:
    """Code length saved by the catch-up mixture (growth_math 4a (iii); van Erven et al., JRSS B 2012).

    The mixture codes blocks before s with the control and those from s on with the candidate, with prior weight
    1 / (s (s + 1)) on s = 1 .. B and the rest, 1 / (B + 1), on never switching. A candidate that is worse until it has
    caught up is then charged ln(1/w_s) instead of its early losses.

    Args:
        shorter: code length of the control minus the candidate's, block by block, nats.

    Returns:
        ln p_switch - ln p_control, nats.
    """
    blocks = np.asarray(shorter, dtype=np.float64)
    count = len(blocks)
    tails = np.append(np.cumsum(blocks[::-1])[::-1], 0.0)
    weights = [1.0 / (s * (s + 1)) for s in range(1, count + 1)] + [1.0 / (count + 1)]
    return float(np.logaddexp.reduce(tails + np.log(weights)))


@final
@dataclass(frozen=True, kw_only=True)
class Mdl(AbstractStrategy):
    """Prequential code length of fresh validation labels, with a catch-up mixture (Blier and Ollivier 2018).

    Accepts when the labels saved, less the price, exceed ln K + ln(1/alpha_r) nats. exp(R) is a likelihood ratio of two
    predictive distributions, so by Ville's inequality a control that is the truth is beaten with probability
    alpha at most, over all rounds together. The two-part length is reported and gates nothing: at small n it never
    lets a network grow.
    """

    kind: Literal["mdl"] = "mdl"
    alpha: float = 0.05
    """Chance of ever accepting a useless move, spent over the rounds; in (0, 1)."""
    screen: float = 0.3
    """False discovery rate of the predictions that reach a probe; in (0, 1)."""

    def __post_init__(self) -> None:
        check_level(self.alpha)
        check_level(self.screen)

    @property
    def level(self) -> float:
        return self.alpha

    def initial_state(self, constant_loss: float) -> State:
        return initial_state(constant_loss)

    def learn(self, state: State, outcomes: Sequence[Outcome], situation: Situation) -> State:
        return learn(state, outcomes)

    def shortlist(
        self, proposals: Sequence[Proposal], situation: Situation, state: State, rng: np.random.Generator
    ) -> tuple[Proposal, ...]:
        return screened(proposals, situation, self.screen, state, rng)

    def judge(self, evidence: Evidence, situation: Situation, state: State) -> Verdict:
        rate = evidence.nats_per_loss
        price = situation.price * evidence.proposal.added_flops
        # What a move saves counts where its labels are coded, not where the mixture stays with the control.
        blocks = [
            rate * float(np.sum(control - candidate - min(price, 0.0)))
            for control, candidate in zip(evidence.control_blocks, evidence.candidate_blocks, strict=True)
        ]
        n = len(evidence.control)
        charge = n * rate * price
        saved = switch_code(blocks) - max(charge, 0.0)
        threshold = math.log(evidence.probed) + math.log(1.0 / spent(self.alpha, situation))
        two_part = n * rate * evidence.gain - 0.5 * evidence.proposal.added_params * math.log(n)
        accepted = saved > threshold
        word = "more" if accepted else "no more"
        return Verdict(
            accepted,
            saved,
            threshold,
            f"codes {n} labels in {saved:.1f} nats less, price of {charge:.1f} included: {word} than the "
            f"{threshold:.1f} that {evidence.probed} candidates and alpha ask (two-part length: {two_part:+.1f})",
        )
