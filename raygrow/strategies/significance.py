"""Significance: grow when a fair bet against the gain would have been ruinous."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from raygrow.strategies.base import (
    AbstractStrategy,
    Evidence,
    Losses,
    Outcome,
    Proposal,
    Situation,
    State,
    Verdict,
    check_level,
    spent,
)
from raygrow.strategies.screen import initial_state, learn, screened

STAKES = np.arange(1, 33) / 64.0
"""Fractions of the wealth that are staked, up to a half."""


def log_wealth(x: Losses) -> Losses:
    """Running log wealth of betting on values in [-1, 1] whose mean is at most 0 under the null.

    The wealth is spread evenly over constant stakes in (0, 1/2], each a test supermartingale, so their mean is one too
    (Waudby-Smith and Ramdas, JRSS B 2024, section 4). A stake learned from the earlier values (growth_math 4b) needs
    no grid but loses 4 to 5 points of power on probes of a thousand examples.
    """
    paths = np.cumsum(np.log1p(np.outer(x, STAKES)), axis=0)
    return np.asarray(np.logaddexp.reduce(paths, axis=1) - math.log(len(STAKES)), dtype=np.float64)


@final
@dataclass(frozen=True, kw_only=True)
class Significance(AbstractStrategy):
    """Betting e-process on the paired losses less the price; valid in finite samples at any stopping time.

    Accepts when the wealth reaches K / alpha_r at some example. Losses are clipped at the 99 % quantile of their size on
    ``search`` (or at what the move saves, if that is more), so the guarantee is for the clipped mean.
    """

    kind: Literal["significance"] = "significance"
    alpha: float = 0.05
    """Chance of ever accepting a useless move, spent over the rounds; in (0, 1)."""
    screen: float = 0.3
    """False discovery rate of the predictions that reach a probe; in (0, 1)."""
    clip_quantile: float = 0.99
    """Quantile of |loss difference| on ``search`` at which differences are clipped; in (0, 1]."""

    def __post_init__(self) -> None:
        check_level(self.alpha)
        check_level(self.screen)
        if not 0.0 < self.clip_quantile <= 1.0:
            raise ValueError(f"`0 < clip_quantile <= 1` must hold, but got {self.clip_quantile}")

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
        threshold = math.log(evidence.probed / spent(self.alpha, situation))
        on_search = np.abs(evidence.control_search - evidence.candidate_search)
        charge = situation.price * evidence.proposal.added_flops
        # What a move saves is the same on every example: it is not clipped away.
        bound = max(float(np.quantile(on_search, self.clip_quantile)), -charge)
        if not bound > 0.0:
            return Verdict(False, 0.0, threshold, "control and candidate predict alike on every search example")
        difference = evidence.control - evidence.candidate - charge
        wealth = log_wealth(np.clip(difference, -bound, bound) / bound)
        statistic = float(max(0.0, wealth.max()))
        accepted = statistic >= threshold
        word = "reaches" if accepted else "stays below"
        return Verdict(
            accepted,
            statistic,
            threshold,
            f"betting on {len(difference)} paired losses, log wealth {statistic:.1f} {word} the {threshold:.1f} that "
            f"{evidence.probed} candidates and alpha ask",
        )
