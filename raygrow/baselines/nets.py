"""Networks of a fixed size and the loop that trains them: plain layers, He start, half a cosine from the first step.

They train in the leanest loop there is here (raygrow's own packed step, no loader), so that no comparison is won by
the other side's overhead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from raygrow.architecture import (
    INPUT,
    OUTPUT,
    Architecture,
    Edge,
    Node,
    Palette,
    family_named,
    forward_flops,
    params,
    training_flops,
)
from raygrow.baselines.base import Repetition
from raygrow.data import Dataset, Split
from raygrow.errors import ConfigError
from raygrow.nn import Network, OptimizerPlan, State, weight_name
from raygrow.nn.losses import LOSSES
from raygrow.training import Examples, Fork, Pack, Score, example_order, score
from raygrow.training.autograd import AutogradPack

RELU = Palette("relu")
FLAT = ("dag", "mlp")
"""Families whose fixed networks are dense layers; they see an image as the vector of its values."""


def layered(inputs: int, hidden: Sequence[int], outputs: int, palette: Palette = RELU) -> Architecture:
    """A net of these hidden layers, one after the other; none is the linear model."""
    nodes = [
        Node(INPUT, inputs, "identity"),
        *(palette.node(f"h{i}", size, ()) for i, size in enumerate(hidden, start=1)),
        Node(OUTPUT, outputs, "identity"),
    ]
    return Architecture(tuple(nodes), tuple(Edge(a.name, b.name) for a, b in pairwise(nodes)))


def fixed_architecture(repetition: Repetition, hidden: Sequence[int]) -> Architecture:
    """The network of these widths in the family of the campaigns: dense layers for dag and mlp, else its stages.

    Raises:
        ConfigError: the family cannot be of these widths.
    """
    plan, facts = repetition.plan.network, repetition.facts
    if plan.family in FLAT:
        return layered(facts.inputs, hidden, facts.outputs, plan.palette)
    if not hidden:
        raise ConfigError(f"a network of the family {plan.family!r} has at least one stage, but no width is given")
    chosen = replace(plan, widths=tuple(hidden))
    return family_named(plan.family).start(facts.inputs, facts.shape, facts.outputs, chosen)


def within_budget(repetition: Repetition, arch: Architecture) -> bool:
    """Whether a network may be of this architecture at all."""
    budget = repetition.plan.budget
    too_slow = budget.max_flops_per_example is not None and forward_flops(arch) > budget.max_flops_per_example
    return not too_slow and (budget.max_params is None or params(arch) <= budget.max_params)


def examples(*splits: Split) -> Examples:
    """Splits one after the other as tensors."""
    return Examples(
        torch.cat([torch.tensor(split.x) for split in splits]), torch.cat([torch.tensor(split.y) for split in splits])
    )


def all_training_rows(data: Dataset) -> Examples:
    """``train`` and ``search``: whoever has no line search may learn from those rows too."""
    return examples(data.train, data.search)


def training_rows(repetition: Repetition) -> Examples:
    """The same, augmented as the campaigns of the repetition augment theirs."""
    rows = all_training_rows(repetition.dataset)
    return replace(rows, augment=repetition.member.training.augment, shape=repetition.facts.shape)


def started(arch: Architecture, seed: int) -> Network:
    """Normal weights of variance 2 / fan-in (He et al. 2015) where a hidden layer is there; the linear model stays at 0."""
    network, generator = Network(arch), torch.Generator().manual_seed(seed)
    if len(arch.nodes) == 2:
        return network
    fan_in = dict.fromkeys(arch.by_name, 0)
    for edge in arch.edges:
        if edge.reading.weighted:
            fan_in[edge.target] += network.named[weight_name(edge.source, edge.target)][0].numel()
    with torch.no_grad():
        for edge in arch.edges:
            if edge.reading.weighted:
                weight = network.named[weight_name(edge.source, edge.target)]
                weight.normal_(0.0, math.sqrt(2.0 / fan_in[edge.target]), generator=generator)
    return network


class FixedNet:
    """A network of a fixed size on its way through its examples.

    Args:
        network: trained in place.
        train: rows it learns from.
        task: classification or regression.
        total: examples the cosine is laid out for.
        plan: of the optimiser, at the first step; half a cosine takes its rate to 0.
        batch_size, seed: the seed is of the order.
        state: of the optimiser, to go on from.
        anneal: without, the rate stays.
    """

    def __init__(
        self,
        network: Network,
        train: Examples,
        task: str,
        total: int,
        plan: OptimizerPlan,
        batch_size: int,
        seed: int,
        state: State | None = None,
        anneal: bool = True,
    ) -> None:
        self.network = network
        self._train, self._loss, self._batch = train, LOSSES[task], batch_size
        engine = Pack if network.arch.plain else AutogradPack
        self._pack = engine([[Fork(network, state or {})]], self._loss, plan)
        self._order = example_order(len(train), total, seed)
        self._steps, self._seen = math.ceil(total / batch_size) if anneal else 0, 0
        self.flops = 0

    def advance(self, count: int) -> None:
        """Train on the next ``count`` examples, whole batches but for the last."""
        index = self._order[self._seen : self._seen + count]
        self._seen += len(index)
        self.flops += len(index) * training_flops(self.network.arch)
        self._pack.train([self._train], [index], self._batch, anneal=self._steps)
        self._pack.write([[self.network]])

    @property
    def state(self) -> State:
        """Of the optimiser, as a copy."""
        return self._pack.states()[0][0]

    def score(self, data: Examples, counted: bool = True) -> Score:
        """Measure it; reads of the test split are not training and are not counted."""
        if counted:
            self.flops += len(data) * forward_flops(self.network.arch)
        return score(self.network, data, self._loss)
