"""Any directed acyclic graph."""

from __future__ import annotations

from typing import ClassVar, final

from raygrow.architecture.families.base import AbstractFamily, Choices, Draft
from raygrow.architecture.readings import Convolution
from raygrow.architecture.spec import Architecture, Node


@final
class Dag(AbstractFamily):
    """Nodes between any others, from the linear model of all inputs, the simplest network there is (Douka et al. 2025).

    ``start: convolution`` begins at one convolution of one channel to a pooled linear head instead: for images so large that
    a weight a pixel and class is more than growth would ever add.

    A new node beside what there is says in advance what it will gain, a layer in series does not: with it on offer, strategies
    that trust their own expectation of such moves found smaller and worse networks. So it is made where it is asked for.
    """

    name: ClassVar[str] = "dag"
    moves: ClassVar[tuple[str, ...]] = ("widen", "add_node", "add_edge", "prune")
    more_moves: ClassVar[tuple[str, ...]] = ("insert_layer",)
    starts: ClassVar[tuple[str, ...]] = ("linear", "convolution")

    def _start(self, source: Node, outputs: int, choices: Choices) -> Architecture:
        draft = Draft(source, self.palette(choices))
        if choices.start == "linear" or not source.grid:
            return draft.headed(outputs, source)
        kernel = Convolution.same(choices.kernels[0], len(source.grid))
        return draft.headed(outputs, draft.layer(1, source.grid, {source.name: kernel}), choices.cells)
