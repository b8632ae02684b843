"""A continuous relaxation of the graph: everything at once, then edges go."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from raygrow.architecture import (
    INPUT,
    OUTPUT,
    Architecture,
    Edge,
    Node,
    backward_flops,
    digest_seed,
    edge_flops,
    forward_flops,
    training_flops,
)
from raygrow.baselines.base import AbstractTrial, Repetition
from raygrow.baselines.course import CHECKS, Course
from raygrow.baselines.fixed import check_rate
from raygrow.baselines.nets import FLAT, examples, started, within_budget
from raygrow.errors import ConfigError
from raygrow.nn import MOMENTS, Optimizer, OptimizerKind
from raygrow.population.lengths import Length, check_length
from raygrow.population.pool_plan import check_least
from raygrow.training import Examples, example_order
from raygrow.training.examples import gathered

SEARCH_SHARE = 0.5
"""Share of a budget of training FLOPs that the super-network may take; the rest trains what is left of it."""
BETA, LOW, HIGH = 2 / 3, -0.1, 1.1
"""Temperature and stretch of a hard concrete gate (Louizos et al. 2018)."""
BEGIN = 1.0
"""Logit of every gate at first: open with probability 0.93."""
CLIP = 1e-6
"""Least distance of a uniform draw from 0 and 1."""


@final
@dataclass(frozen=True, kw_only=True)
class Relaxed(AbstractTrial):
    """A super-network with every edge that a graph of so many nodes can have, each with a gate; what is trained last is the
    graph of the edges whose gates stay open: DARTS (Liu et al. 2019) on the graphs that campaigns grow, with the moves
    that it has left, the removal of edges.

    Weights take a step on a batch of train, gates one on a batch of ``search``, in turn (first-order DARTS). Gates are hard
    concrete draws, a pair of batches each, and pay the price of the campaigns (``growth.price``) for the FLOPs of the edges
    that they are expected to open: plain factors would be made up for by larger weights, a gate that is shut half of the time
    is not (Louizos et al. 2018; Xie et al. 2019 relax a search likewise). Edges that are open with a probability of at most one
    half go, then the least probable ones until the network is within its budget, and nodes without a way in or out with them.
    The rest begins anew (He) and trains as a fixed network does. Vectors and dense layers alone: it sees an image as the vector
    of its values.
    """

    kind: Literal["relaxed"] = "relaxed"
    nodes: int = 4
    """Hidden nodes of the super-network, each of which may read all before it; at least 1."""
    units: int = 16
    """Units of each, at least 1."""
    search_examples: Length = "10 epochs"
    """Training examples of the super-network's weights, and as many of its gates, at least 1; also epochs."""
    examples: Length = "40 epochs"
    """Training examples of the chosen network, at least 1; also epochs."""
    gate_lr: float = 0.01
    """Learning rate of the gates (Adam), above 0."""
    lr: float | None = None
    """Learning rate of weights at the first step, above 0; null: that of the campaign's final anneal."""

    def __post_init__(self) -> None:
        check_least(1, nodes=self.nodes, units=self.units)
        check_length("search_examples", self.search_examples, 1)
        check_length("examples", self.examples, 1)
        check_rate(self.gate_lr)
        check_rate(self.lr)

    def run(self, repetition: Repetition) -> dict[str, Any]:
        plan, facts = repetition.plan.network, repetition.facts
        if plan.family not in FLAT:
            raise ConfigError(
                f"`relaxed` relaxes graphs of dense layers, but `network.family` is {plan.family!r}: choose dag or mlp, which "
                "it reads as vectors, or another baseline"
            )
        course = Course(repetition)
        whole = complete(facts.inputs, [self.units] * self.nodes, facts.outputs, plan.activation)
        # A pair of steps: the gates' needs no gradients of weights.
        pair = training_flops(whole) + forward_flops(whole) + backward_flops(whole, weights=False)
        count = course.length(self.search_examples)
        if (left := course.left(SEARCH_SHARE)) != math.inf:
            count = min(count, int(left // pair))
        if count < course.training.batch_size:
            raise ConfigError(
                f"`train_flops` {repetition.train_flops or 0:.3g} does not pay for a batch of the super-network, "
                f"{forward_flops(whole)} FLOPs per example: raise it, or give fewer nodes or units"
            )
        open_ = _Supernet(whole, self, course).trained(count)
        course.spent += count * pair
        arch = self._left(whole, open_, repetition)
        examples_ = course.begin(arch, course.length(self.examples), CHECKS)
        network, found = course.train(started(arch, repetition.seed), examples_, self.lr, CHECKS)
        return course.finish(self, network, found, tried=len(whole.edges), taken=len(arch.edges), rounds=2)

    @staticmethod
    def _left(whole: Architecture, open_: Tensor, repetition: Repetition) -> Architecture:
        """What is left of the super-network when the edges that are shut have gone.

        Args:
            open_: probability of each edge, [edges].
        """
        probability = dict(zip(whole.edges, open_.tolist(), strict=True))
        kept = sorted(
            (e for e in whole.edges if probability[e] > 0.5), key=lambda e: (-probability[e], whole.edges.index(e))
        )
        arch = remaining(whole, kept)
        while not within_budget(repetition, arch):
            if not kept:
                raise ConfigError(
                    f"`budget`: the linear model takes {forward_flops(arch)} FLOPs per example, above what any network may "
                    "have: raise it"
                )
            kept.pop()
            arch = remaining(whole, kept)
        return arch


def complete(inputs: int, hidden: list[int], outputs: int, activation: str) -> Architecture:
    """Dense layers of which each reads all before it."""
    nodes = [
        Node(INPUT, inputs, "identity"),
        *(Node(f"h{i}", size, activation) for i, size in enumerate(hidden, start=1)),
        Node(OUTPUT, outputs, "identity"),
    ]
    edges = [Edge(a.name, b.name) for i, b in enumerate(nodes) for a in nodes[:i]]
    return Architecture(tuple(nodes), tuple(edges))


def remaining(whole: Architecture, kept: Iterable[Edge]) -> Architecture:
    """The network of these edges, without nodes that no path joins to both ends; the linear model where none is joined."""
    edges = list(kept)
    while True:
        fed, read = {INPUT, *(e.target for e in edges)}, {OUTPUT, *(e.source for e in edges)}
        joined = [e for e in edges if e.source in fed and e.target in read]
        if len(joined) == len(edges):
            break
        edges = joined
    if not any(edge.target == OUTPUT for edge in edges):
        edges = [Edge(INPUT, OUTPUT)]
    names = {INPUT, OUTPUT, *(e.source for e in edges)}
    return Architecture(tuple(node for node in whole.nodes if node.name in names), tuple(edges))


class _Supernet:
    """Weights and gates while they train in turn."""

    def __init__(self, arch: Architecture, plan: Relaxed, course: Course) -> None:
        self._course, self._plan = course, plan
        repetition = course.repetition
        seed = digest_seed("relaxed", repetition.seed)
        self._network = started(arch, seed)
        self._draws = torch.Generator().manual_seed(seed)
        self._logits = torch.full((len(arch.edges),), BEGIN, requires_grad=True)
        self._place = {(edge.source, edge.target): i for i, edge in enumerate(arch.edges)}
        self._flops = torch.tensor([float(edge_flops(arch, edge)) for edge in arch.edges])
        self._price = repetition.facts.price(repetition.member.growth, repetition.plan)
        self._train = examples(repetition.dataset.train)
        self._search = examples(repetition.dataset.search)

    def trained(self, count: int) -> Tensor:
        """Train both on so many examples each.

        Returns:
            The probability that each edge is open, [edges].
        """
        course, plan = self._course, self._plan
        seed, batch = course.repetition.seed, course.training.batch_size
        steps, lr = math.ceil(count / batch), plan.lr or course.lr
        weights = list(self._network.parameters())
        of_weights, of_gates = _Steps(course.training.optimizer, weights), _Steps("adam", [self._logits])
        batches = _batches(self._train, count, batch, seed), _batches(self._search, count, batch, seed + 1)
        for taken, (train, search) in enumerate(zip(*batches, strict=True)):
            gates = self._gates(self._logits.detach())
            loss = course.loss.mean(self._output(train.x, gates), train.y)
            of_weights.step(loss, lr * 0.5 * (1.0 + math.cos(math.pi * taken / steps)))
            gates = self._gates(self._logits)
            loss = course.loss.mean(self._output(search.x, gates), search.y)
            of_gates.step(loss + self._price * (self._open() * self._flops).sum(), plan.gate_lr)
        return self._open().detach()

    def _open(self) -> Tensor:
        """Probability that a gate is not shut."""
        return torch.sigmoid(self._logits - BETA * math.log(-LOW / HIGH))

    def _gates(self, logits: Tensor) -> Tensor:
        """A draw of all gates, in [0, 1]."""
        uniform = torch.rand(len(logits), generator=self._draws).clamp(CLIP, 1 - CLIP)
        draw = torch.sigmoid((uniform.logit() + logits) / BETA)
        return (draw * (HIGH - LOW) + LOW).clamp(0.0, 1.0)

    def _output(self, x: Tensor, gates: Tensor) -> Tensor:
        """Outputs with the weights of every edge times its gate."""
        values = {INPUT: x}
        for name, reads, bias, _, function in self._network.steps:
            total = bias.expand(len(x), -1)
            for source, reading, weight, _ in reads:
                total = total + gates[self._place[source, name]] * reading.read(values[source], weight)
            values[name] = function(total)
        return values[OUTPUT]


class _Steps:
    """An optimiser of a few tensors."""

    def __init__(self, kind: OptimizerKind, params: list[Any]) -> None:
        self._params, self._gradients = params, [torch.zeros_like(p) for p in params]
        moments = [[torch.zeros_like(p) for p in params] for _ in MOMENTS[kind]]
        data = [p.detach() for p in params]
        self._optimizer = Optimizer(kind, data, self._gradients, moments, [torch.zeros(()) for _ in params])

    def step(self, loss: Tensor, lr: float) -> None:
        """One update down the gradient of a loss."""
        torch._foreach_copy_(self._gradients, torch.autograd.grad(loss, self._params))
        self._optimizer.step(lr)


def _batches(rows: Examples, count: int, batch: int, seed: int) -> Iterable[Examples]:
    """Batches of so many examples in a random order."""
    for piece in gathered(rows, example_order(len(rows), count, seed), batch):
        for start in range(0, len(piece), batch):
            yield Examples(piece.x[start : start + batch], piece.y[start : start + batch])
