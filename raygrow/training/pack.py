"""Packed training: many small networks in one pass a step, with a backward pass by hand.

Tiny networks are bound by the overhead of each operator, so what costs is the number of calls and not the arithmetic. All
networks share one ``Store``, so that their update is one call. An activation is one call a level; the examples are read by
one product a segment; one batched product serves a block of weights in every network that has it (``layout``).

A *part* is a set of networks that share a union. Its products have shapes and alignments of its own, whatever else is in
the pack; what runs over several parts at once is elementwise, on regions cut at whole vectors. So a network's
weights depend on its part alone, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from raygrow.architecture import OUTPUT
from raygrow.nn import Network, OptimizerPlan
from raygrow.nn.losses import AbstractLoss
from raygrow.training.examples import Examples, gathered
from raygrow.training.layout import Part, layouts
from raygrow.training.store import Fork, Store
from raygrow.training.workspace import Workspace

T = TypeVar("T")


class Pack:
    """Networks that train together on batches of equal size.

    Args:
        groups: networks that read the same examples, one group a member.
        loss: of every network.
        plan: of every network's optimiser.
        averaged: keep a running average of all weights (``Store``).
    """

    def __init__(
        self, groups: Sequence[Sequence[Fork]], loss: AbstractLoss, plan: OptimizerPlan, averaged: bool = False
    ) -> None:
        self._sizes = [len(group) for group in groups]
        self._outputs = [group[0].network.arch.size(OUTPUT) for group in groups]
        self._loss = loss
        self._parts: list[Part] = []
        self._group_of: list[int] = []
        at = first = 0
        for g, group in enumerate(groups):
            for members, layout in layouts([fork.network.arch for fork in group]):
                self._parts.append(Part([first + i for i in members], layout, at))
                self._group_of.append(g)
                at = self._parts[-1].stop
            first += len(group)
        forks = [fork for group in groups for fork in group]
        self._store = Store(forks, [part.places for part in self._parts], plan, averaged)
        self._workspaces: dict[int, Workspace] = {}

    def train(self, data: Sequence[Examples], orders: Sequence[Tensor], batch_size: int, anneal: int = 0) -> None:
        """Take the steps that these examples make.

        Args:
            data: examples of every group.
            orders: which of them, in which order, by group; equally many.
            anneal: steps, counted from the pack's first, over which half a cosine takes the rate from the plan's to 0;
                0 keeps it constant.
        """
        # Tensors made here never meet autograd, so they need none of its bookkeeping.
        with torch.inference_mode():
            streams = [gathered(*pair, batch_size) for pair in zip(data, orders, strict=True)]
            for piece in zip(*streams, strict=True):
                xs = [torch.split(own.x, batch_size) for own in piece]
                wanted = [
                    torch.split(self._loss.columns(own.y, outputs), batch_size, 1)
                    for own, outputs in zip(piece, self._outputs, strict=True)
                ]
                for k, batch in enumerate(xs[0]):
                    workspace = self._workspace(len(batch))
                    workspace.step(
                        [xs[g][k] for g in self._group_of], [wanted[g][k] for g in self._group_of], self._loss
                    )
                    self._store.step(anneal)

    def _workspace(self, batch: int) -> Workspace:
        if batch not in self._workspaces:
            self._workspaces[batch] = Workspace(self._parts, self._store.params, self._store.gradients, batch)
        return self._workspaces[batch]

    def observe(self) -> None:
        """Take the gradients of the last step into ``newborn_ratios``."""
        self._store.observe()

    def write(self, networks: Sequence[Sequence[Network]]) -> None:
        """Write the weights, averaged where an average is kept, into networks of the same architectures.

        Args:
            networks: by group, as given.
        """
        self._store.write([network for group in networks for network in group])

    def states(self) -> list[list[dict[str, dict[str, Tensor]]]]:
        """The optimiser's state of every network, by group and parameter name, as copies."""
        return self._grouped(self._store.states())

    def newborn_ratios(self) -> list[list[float | None]]:
        """Gradient of a new entry relative to that of an old one, by group and network (``Store.newborn_ratios``)."""
        return self._grouped(self._store.newborn_ratios())

    def _grouped(self, by_fork: Sequence[T]) -> list[list[T]]:
        found = iter(by_fork)
        return [[next(found) for _ in range(size)] for size in self._sizes]
