"""Networks of a fixed size, which growth is measured against: plain layers, He start, Adam, a cosine from the first step.

They train in the leanest loop there is here (raygrow's own packed step, no loader), so that no comparison is won by
the other side's overhead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from raygrow.architecture import Architecture, forward_flops, training_flops
from raygrow.architecture.spec import INPUT, OUTPUT, Edge, Node
from raygrow.data import Dataset, Split
from raygrow.nn import Network, OptimizerPlan
from raygrow.nn.losses import LOSSES
from raygrow.training import Examples, Fork, Pack, Score, example_order, score


def layered(inputs: int, hidden: Sequence[int], outputs: int) -> Architecture:
    """A ReLU net of these hidden layers, one after the other; none is the linear model."""
    nodes = [
        Node(INPUT, inputs, "identity"),
        *(Node(f"h{i}", size, "relu") for i, size in enumerate(hidden, start=1)),
        Node(OUTPUT, outputs, "identity"),
    ]
    return Architecture(tuple(nodes), tuple(Edge(a.name, b.name) for a, b in pairwise(nodes)))


def examples(*splits: Split) -> Examples:
    """Splits one after the other as tensors."""
    return Examples(
        torch.cat([torch.tensor(split.x) for split in splits]), torch.cat([torch.tensor(split.y) for split in splits])
    )


def all_training_rows(data: Dataset) -> Examples:
    """``train`` and ``search``: whoever has no line search may learn from those rows too."""
    return examples(data.train, data.search)


class FixedNet:
    """A network of a fixed size on its way through its examples.

    Args:
        arch: of its layers.
        train: rows it learns from.
        task: classification or regression.
        total: examples the cosine is laid out for.
        lr: at the first step; half a cosine takes it to 0.
        batch_size, seed: the seed is of the start and of the order.
    """

    def __init__(
        self, arch: Architecture, train: Examples, task: str, total: int, lr: float, batch_size: int, seed: int
    ) -> None:
        self.network = Network(arch)
        _he_start(self.network, torch.Generator().manual_seed(seed))
        self._train, self._loss, self._batch = train, LOSSES[task], batch_size
        self._pack = Pack([[Fork(self.network, {})]], self._loss, OptimizerPlan("adam", lr))
        self._order = example_order(len(train), total, seed)
        self._steps, self._seen = math.ceil(total / batch_size), 0
        self.flops = 0

    def advance(self, count: int) -> None:
        """Train on the next ``count`` examples, whole batches but for the last."""
        index = self._order[self._seen : self._seen + count]
        self._seen += len(index)
        self.flops += len(index) * training_flops(self.network.arch)
        self._pack.train([self._train], [index], self._batch, anneal=self._steps)
        self._pack.write([[self.network]])

    def score(self, data: Examples, counted: bool = True) -> Score:
        """Measure it; reads of the test split are not training and are not counted."""
        if counted:
            self.flops += len(data) * forward_flops(self.network.arch)
        return score(self.network, data, self._loss)


def _he_start(network: Network, generator: torch.Generator) -> None:
    """Normal weights of variance 2 / fan-in where a hidden layer is there; the linear model stays at 0."""
    if len(network.arch.nodes) == 2:
        return
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("weights."):
                parameter.normal_(0.0, math.sqrt(2.0 / parameter.shape[1]), generator=generator)
