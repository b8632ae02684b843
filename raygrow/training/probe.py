"""The probe: forks of one network trained on the same batches and measured on the same held-out examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from raygrow.nn import Network, OptimizerPlan, State
from raygrow.nn.losses import AbstractLoss
from raygrow.training.evaluate import Score, score
from raygrow.training.examples import Examples, example_order
from raygrow.training.fit import Learned, Lesson, teach
from raygrow.training.store import Fork


@dataclass(frozen=True)
class ProbePlan:
    """How long, in how many blocks, and in which order.

    Attributes:
        examples: training examples of each fork.
        blocks: B: training is cut in B segments and ``validation`` in B blocks; block b is scored after segment b.
        batch_size: examples a step.
        seed: of the order of training examples and of validation.
    """

    examples: int
    blocks: int
    batch_size: int
    seed: int


@dataclass(frozen=True)
class ForkResult:
    """What one fork did.

    Attributes:
        network: the average of the fork's weights over its last steps, which is what every loss here is of.
        state: of the optimiser after the probe.
        newborn_gradient_ratio: of what was grown just before the probe (``Learned``).
        blocks: losses of block b after segment b.
        validation: all of validation after the last segment, in the probe's permuted order.
        search: the search examples after the last segment.
        flops: training and evaluation.
    """

    network: Network
    state: State
    newborn_gradient_ratio: float | None
    blocks: tuple[NDArray[np.float64], ...]
    validation: Score
    search: Score
    flops: int

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.validation.losses).all())


class Probe:
    """Every fork trained on the same batches in the same order, and measured. No fork trains on search or validation.

    Args:
        forks: left as they were.
        train, search, validation: splits.
        plan, optimizer: of every fork.

    Attributes:
        lesson: to be taught, alone or with others; then ``results``.
    """

    def __init__(
        self,
        forks: Sequence[Fork],
        train: Examples,
        search: Examples,
        validation: Examples,
        loss: AbstractLoss,
        plan: ProbePlan,
        optimizer: OptimizerPlan,
    ) -> None:
        self._search, self._loss = search, loss
        steps = max(-(-plan.examples // plan.batch_size), 1)
        order = example_order(len(train), plan.examples, plan.seed)
        # Segments end on whole batches, so that a probe of B blocks takes the same steps as one of a single block.
        cuts = [min(round(steps * b / plan.blocks) * plan.batch_size, len(order)) for b in range(plan.blocks + 1)]
        orders = [order[start:stop] for start, stop in pairwise(cuts)]
        permuted = torch.randperm(len(validation), generator=torch.Generator().manual_seed(plan.seed))
        self._validation = validation.take(permuted.to(validation.x.device))
        edges = np.linspace(0, len(validation), plan.blocks + 1).round().astype(int)
        self._edges = list(pairwise(edges.tolist()))
        self._blocks: list[list[Score]] = [[] for _ in forks]
        self.lesson = Lesson(
            forks, train, orders, plan.batch_size, loss, optimizer, averaged=True, heard=self._score_block
        )

    def _score_block(self, segment: int, networks: Sequence[Network]) -> None:
        start, stop = self._edges[segment]
        block = Examples(self._validation.x[start:stop], self._validation.y[start:stop])
        if len(block):
            for scores, network in zip(self._blocks, networks, strict=True):
                scores.append(score(network, block, self._loss))

    def results(self, learned: Sequence[Learned]) -> list[ForkResult]:
        """Measure what ``teach`` made of the forks."""
        found = []
        for fork, blocks in zip(learned, self._blocks, strict=True):
            whole = score(fork.network, self._validation, self._loss)
            on_search = score(fork.network, self._search, self._loss)
            spent = sum(b.flops for b in (*blocks, whole, on_search))
            flops = self.lesson.flops_of(fork.network.arch) + spent
            losses = tuple(block.losses for block in blocks)
            found.append(
                ForkResult(fork.network, fork.state, fork.newborn_gradient_ratio, losses, whole, on_search, flops)
            )
        return found


def run_probe(
    forks: Sequence[Fork],
    train: Examples,
    search: Examples,
    validation: Examples,
    loss: AbstractLoss,
    plan: ProbePlan,
    optimizer: OptimizerPlan,
) -> list[ForkResult]:
    """One probe, by itself."""
    probe = Probe(forks, train, search, validation, loss, plan, optimizer)
    (learned,) = teach([probe.lesson])
    return probe.results(learned)
