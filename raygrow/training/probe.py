"""The probe: forks of one network trained on the same batches and measured on the same held-out examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from raygrow.nn import Network, Optimizer, OptimizerPlan, State
from raygrow.nn.losses import AbstractLoss
from raygrow.training.fit import Examples, Score, WeightAverage, example_order, fit, score


@dataclass(frozen=True)
class Fork:
    """One arm of a probe: a network of its own and the optimiser state it carries."""

    network: Network
    state: State


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
        blocks: losses of block b after segment b.
        validation: all of validation after the last segment, in the probe's permuted order.
        search: the search examples after the last segment.
        flops: training and evaluation.
    """

    network: Network
    state: State
    blocks: tuple[NDArray[np.float64], ...]
    validation: Score
    search: Score
    flops: int

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.validation.losses).all())


def run_probe(
    forks: Sequence[Fork],
    train: Examples,
    search: Examples,
    validation: Examples,
    loss: AbstractLoss,
    plan: ProbePlan,
    optimizer: OptimizerPlan,
) -> list[ForkResult]:
    """Train every fork (in place) on the same batches in the same order, and measure it.

    Forks do not touch one another, so training them one after the other is training in lockstep.
    No fork trains on search or validation examples.
    """
    steps = max(-(-plan.examples // plan.batch_size), 1)
    order = example_order(len(train), plan.examples, plan.seed)
    # Segments end on whole batches, so that a probe of B blocks takes the same steps as one of a single block.
    cuts = [min(round(steps * b / plan.blocks) * plan.batch_size, len(order)) for b in range(plan.blocks + 1)]
    permuted = torch.randperm(len(validation), generator=torch.Generator().manual_seed(plan.seed))
    shuffled = validation.take(permuted.to(validation.x.device))
    edges = np.linspace(0, len(validation), plan.blocks + 1).round().astype(int)
    return [_run_fork(fork, train, search, shuffled, loss, plan, optimizer, order, cuts, edges) for fork in forks]


def _run_fork(
    fork: Fork,
    train: Examples,
    search: Examples,
    validation: Examples,
    loss: AbstractLoss,
    plan: ProbePlan,
    optimizer_plan: OptimizerPlan,
    order: torch.Tensor,
    cuts: Sequence[int],
    edges: NDArray[np.int_],
) -> ForkResult:
    optimizer = Optimizer(fork.network, optimizer_plan, fork.state)
    average = WeightAverage(fork.network)
    flops = 0
    blocks: list[NDArray[np.float64]] = []
    for b in range(plan.blocks):
        flops += fit(
            fork.network, optimizer, train, loss, order[cuts[b] : cuts[b + 1]], plan.batch_size, average=average
        )
        block = Examples(validation.x[edges[b] : edges[b + 1]], validation.y[edges[b] : edges[b + 1]])
        if len(block):
            scored = score(average.network, block, loss)
            flops += scored.flops
            blocks.append(scored.losses)
    whole = score(average.network, validation, loss)
    on_search = score(average.network, search, loss)
    return ForkResult(
        average.network,
        optimizer.export(),
        tuple(blocks),
        whole,
        on_search,
        flops + whole.flops + on_search.flops,
    )
