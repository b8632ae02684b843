"""Which proposals are worth a probe: shared by the strategies that test what they probe.

The screen only chooses what to probe; the probe alone decides. Its one piece of knowledge is how much more a move gains
in a probe than one Newton step predicts, learned from the member's own probes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raygrow.strategies.base import Outcome, Proposal, Situation, State

PRIOR_FACTOR = 3.0
"""Realised over predicted gain before anything was probed: training moves a new unit far beyond its first step."""

PRIOR_WEIGHT = 0.01
"""Predicted gain, in units of the constant prediction's loss, that the prior factor weighs as much as."""


def initial_state(constant_loss: float) -> State:
    """Sums of predicted and realised gains."""
    weight = PRIOR_WEIGHT * constant_loss
    return {"predicted": weight, "realised": PRIOR_FACTOR * weight}


def learn(state: State, outcomes: Sequence[Outcome]) -> State:
    """Add a round's probes to the sums. Losses count as no gain: the factor stays positive."""
    predicted, realised = float(state["predicted"]), float(state["realised"])
    for outcome in outcomes:
        if outcome.proposal.predicted_gain is not None and outcome.proposal.predicted_gain > 0:
            predicted += outcome.proposal.predicted_gain
            realised += max(outcome.gain, 0.0)
    return {"predicted": predicted, "realised": realised}


def screened(
    proposals: Sequence[Proposal], situation: Situation, level: float, state: State, rng: np.random.Generator
) -> tuple[Proposal, ...]:
    """Proposals whose prediction stands out (Benjamini-Hochberg at ``level``), by expected value, one a site first.

    A move that saves FLOPs stands beside them where it is expected to save more, at the price, than it loses; no test is needed
    of what it saves. Proposals without a prediction (an initializer that adds nothing at birth) follow in an order drawn at
    random.
    """
    saving = [p for p in proposals if p.added_flops < 0 and p.predicted_gain is not None]
    tested = sorted((p for p in proposals if p.p_value is not None), key=lambda p: (p.p_value, p.id))
    passing = 0
    for rank, proposal in enumerate(tested, start=1):
        assert proposal.p_value is not None
        if proposal.p_value <= level * rank / len(tested):
            passing = rank
    factor = float(state["realised"]) / float(state["predicted"])

    def expected_value(proposal: Proposal) -> float:
        assert proposal.predicted_gain is not None
        # Training makes more of a gain, and mends some of a loss: that is not counted on.
        realised = proposal.predicted_gain * (factor if proposal.predicted_gain > 0 else 1.0)
        return realised - situation.price * proposal.added_flops

    worthy = [*tested[:passing], *(p for p in saving if expected_value(p) > 0)]
    ranked = sorted(worthy, key=lambda p: (-expected_value(p), p.id))
    blind = sorted((p for p in proposals if p.predicted_gain is None), key=lambda p: p.id)
    ranked += [blind[i] for i in rng.permutation(len(blind))]
    sites: set[tuple[str, str]] = set()
    first: list[Proposal] = []
    later: list[Proposal] = []
    for proposal in ranked:
        place = (proposal.move, proposal.site)
        (later if place in sites else first).append(proposal)
        sites.add(place)
    return tuple((first + later)[: situation.candidates])
