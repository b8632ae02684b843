"""What an addition strategy is: whether, where and how much to grow. It sees numbers only, never a model.

A round lets it observe what is on offer, then asks it three things in turn: a shortlist of the proposals worth a probe, a
verdict on each probed one, and what it learns from the outcomes. What it observes and learns is a plain JSON state that travels
with the checkpoint and the ledger.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Losses = NDArray[np.float64]
State = Mapping[str, Any]


@dataclass(frozen=True)
class Proposal:
    """A legal candidate, before any probe.

    Attributes:
        id: the candidate's.
        move, site, units: the move, for reasons in words.
        added_flops: forward FLOPs per example.
        added_params: parameters.
        predicted_gain: cross-fitted first-order prediction, in the units of the loss; None without one.
        p_value: one-sided, of the prediction; None without one.
        features: state vector of a policy, named by ``FEATURES``; None for what was not measured.
        measurements: by name, those that the strategy asks for (``AbstractStrategy.measures``); absent where undefined.
    """

    id: str
    move: str
    site: str
    units: int
    added_flops: int
    added_params: int
    predicted_gain: float | None
    p_value: float | None
    features: tuple[float | None, ...]
    measurements: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Situation:
    """What is the same for every candidate of one member's round.

    Attributes:
        round: from 1.
        tests: rounds before this one in which the member tested something.
        candidates: K, the most candidates that may be probed.
        price: loss per added FLOP that a move must beat.
        constant_loss: loss of the best constant prediction, the natural unit of gains.
        train_metric, search_metric: accuracy (regression: R2) of the network that may grow, on the statistics examples and on
            ``search``: what schedules read. Validation is for verdicts alone.
    """

    round: int
    tests: int
    candidates: int
    price: float
    constant_loss: float
    train_metric: float = 0.0
    search_metric: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """Paired losses of one candidate and the control, after the same examples in the same order.

    Attributes:
        proposal: the candidate.
        probed: how many candidates this round probes.
        control, candidate: loss of each validation example after the last segment, in the round's permuted order, [n].
        control_blocks, candidate_blocks: loss of each example of block b after segment b; together they cover
            validation once, before any fork could have seen what the verdict rests on.
        control_search, candidate_search: loss of each search example after the last segment.
        nats_per_loss: code length of one example per unit of loss. 1 for cross-entropy; for regression
            T / (2 s^2) with T targets and s^2 the control's mean squared error on ``search`` when the probe begins.
    """

    proposal: Proposal
    probed: int
    control: Losses
    candidate: Losses
    control_blocks: tuple[Losses, ...]
    candidate_blocks: tuple[Losses, ...]
    control_search: Losses
    candidate_search: Losses
    nats_per_loss: float

    @property
    def gain(self) -> float:
        """Mean of loss(control) - loss(candidate) over validation."""
        return float(np.mean(self.control - self.candidate))

    @property
    def gain_stderr(self) -> float:
        """Its standard error, paired by example."""
        return float(np.std(self.control - self.candidate, ddof=1) / math.sqrt(len(self.control)))


@dataclass(frozen=True)
class Verdict:
    """A strategy's word on one probed candidate.

    Attributes:
        accepted: whether growth is worth it.
        statistic, threshold: what was compared; None where the strategy compares nothing.
        reason: in words, with the figures.
    """

    accepted: bool
    statistic: float | None
    threshold: float | None
    reason: str


@dataclass(frozen=True)
class Outcome:
    """A probed candidate as a strategy learns from it, once the round is closed."""

    proposal: Proposal
    gain: float
    gain_stderr: float


class AbstractStrategy(ABC):
    """One addition strategy. Concrete classes are final frozen dataclasses with a ``kind`` field.

    Attributes:
        predicts: whether its shortlist reads predictions. For one that does not none is made: ``predicted_gain``, ``p_value``
            and the features that come from the statistics are then None.
        measures: names of the measurements (``raygrow.growth.measurements``) that it reads, or ``module:Class`` of a user's
            own. Nothing else is measured.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "use_attribute_docstrings": True}
    predicts: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...]] = ()

    @property
    def level(self) -> float | None:
        """Most chance of ever accepting a useless move that it guarantees over all rounds; None: it guarantees nothing."""
        return None

    def initial_state(self, constant_loss: float) -> State:
        """What the strategy knows before the first round; plain JSON."""
        return {}

    def observe(self, state: State, proposals: Sequence[Proposal], situation: Situation) -> State:
        """The state with what a round shows before anything is chosen; the other three are given this state."""
        return state

    @abstractmethod
    def shortlist(
        self, proposals: Sequence[Proposal], situation: Situation, state: State, rng: np.random.Generator
    ) -> tuple[Proposal, ...]:
        """At most ``situation.candidates`` proposals to probe, best first; none: do not grow this round."""

    @abstractmethod
    def judge(self, evidence: Evidence, situation: Situation, state: State) -> Verdict:
        """Accepted or not."""

    def learn(self, state: State, outcomes: Sequence[Outcome], situation: Situation) -> State:
        """The state after a round; outcomes come in the order of candidate ids."""
        return state


def spent(alpha: float, situation: Situation) -> float:
    """The share of alpha that this round may spend: 6 alpha / (pi^2 r^2), r counting the rounds that tested (4b)."""
    r = situation.tests + 1
    return 6.0 * alpha / (math.pi**2 * r**2)


def check_level(alpha: float) -> None:
    """Raises ValueError unless 0 < alpha < 1."""
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"`0 < alpha < 1` must hold, but got {alpha}")
